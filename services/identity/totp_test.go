package identity

import (
	"testing"
	"time"
)

// The examples of RFC 6238, appendix B, cut to six digits.
func TestTOTPOfTheStandard(t *testing.T) {
	secret := []byte("12345678901234567890")
	for seconds, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		if got := totpCode(secret, totpStep(time.Unix(seconds, 0))); got != want {
			t.Errorf("at %d: got %s, want %s", seconds, got, want)
		}
	}
}

func TestTOTPTakesTheCodesAroundNow(t *testing.T) {
	secret := []byte("12345678901234567890")
	now := time.Unix(2000000000, 0)
	for off, want := range map[int]bool{-3: false, -2: false, -1: true, 0: true, 1: true, 2: false} {
		code := totpCode(secret, totpStep(now)+int64(off))
		step, ok := matchTOTP(secret, code[:3]+" "+code[3:], now)
		if ok != want || ok && step != totpStep(now)+int64(off) {
			t.Errorf("%d periods off: got %d, %v, want %v", off, step, ok, want)
		}
	}
	for _, code := range []string{"", "0", "279037 1", "２７９０３７", "-79037", "+79037"} {
		if _, ok := matchTOTP(secret, code, now); ok {
			t.Errorf("%q is taken", code)
		}
	}
}

func TestDelaysGrow(t *testing.T) {
	c := passwordFailures("x")
	var last time.Duration
	for n := range 60 {
		d := c.delay(n)
		if d < last || d > longestDelay || n < c.free && d != 0 || n >= c.free && d == 0 {
			t.Errorf("after %d failures: %s, after one less: %s", n, d, last)
		}
		last = d
	}
	if last != longestDelay {
		t.Errorf("the longest delay is %s, want %s", last, longestDelay)
	}
	// NIST SP 800-63B-4 3.2.2: no more than 100 in a row, however they are made.
	if all := c.most + sessionFailures("x").most + maxDevices*deviceFailures("x").most; all > 100 {
		t.Errorf("%d wrong passwords in a row are looked at", all)
	}
}
