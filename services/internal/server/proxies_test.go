package server_test

import (
	"net/netip"
	"testing"

	"latchkey.dev/services/internal/server"
)

func TestWhereARequestComesFrom(t *testing.T) {
	proxies := server.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"straight", "192.0.2.7:4711", nil, "192.0.2.7"},
		{"by a proxy", "10.1.2.3:4711", []string{"192.0.2.7"}, "192.0.2.7"},
		{"by two", "10.1.2.3:4711", []string{"192.0.2.7, 10.9.9.9"}, "192.0.2.7"},
		{"by two that write a header each", "10.1.2.3:4711", []string{"192.0.2.7", "10.9.9.9"}, "192.0.2.7"},
		{"of who is no proxy", "192.0.2.7:4711", []string{"198.51.100.1"}, "192.0.2.7"},
		{"made up before a proxy", "10.1.2.3:4711", []string{"198.51.100.1, 192.0.2.7"}, "192.0.2.7"},
		{"made up as a proxy", "10.1.2.3:4711", []string{"198.51.100.1, 10.7.7.7, 192.0.2.7"}, "192.0.2.7"},
		{"with a port", "10.1.2.3:4711", []string{"192.0.2.7:1234"}, "192.0.2.7"},
		{"of IPv6", "[fd00::1]:4711", []string{"2001:db8::7"}, "2001:db8::7"},
		{"of IPv6 in brackets", "[fd00::1]:4711", []string{"[2001:db8::7]:80"}, "2001:db8::7"},
		{"of IPv4 in IPv6", "[::ffff:10.1.2.3]:4711", []string{"::ffff:192.0.2.7"}, "192.0.2.7"},
		{"nonsense", "10.1.2.3:4711", []string{"192.0.2.7, unknown"}, "10.1.2.3"},
		{"nothing said", "10.1.2.3:4711", nil, "10.1.2.3"},
		{"proxies alone", "10.1.2.3:4711", []string{"10.7.7.7"}, "10.7.7.7"},
		{"no address", "@", []string{"192.0.2.7"}, ""},
	} {
		if got := proxies.Address(c.peer, c.forwarded); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if got := (server.Proxies)(nil).Address(c.peer, c.forwarded); c.peer != "@" && got != (server.Proxies)(nil).Address(c.peer, nil) {
			t.Errorf("%s, where no proxy is trusted: got %q", c.name, got)
		}
	}
}
