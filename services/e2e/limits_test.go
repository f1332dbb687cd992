package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
)

// tooLong is more than a message may have.
const tooLong = 4<<20 + 1

// TestBounds sends what is longer than the suite takes. It must say so or hang up, and
// go on serving others. It is gRPC itself that answers, before any code of the suite, and
// so without an ErrorInfo.
func TestBounds(t *testing.T) {
	s := one(t)
	ctx := s.fill().As(t.Context(), "OW")
	profiles := identitypb.NewProfileServiceClient(s)
	serves := func(after string) {
		t.Helper()
		if _, err := profiles.GetProfile(ctx, &identitypb.GetProfileRequest{}); err != nil {
			t.Fatalf("after %s: %v", after, err)
		}
	}
	_, err := profiles.UpdateProfile(ctx, &identitypb.UpdateProfileRequest{Profile: &identitypb.Profile{DisplayName: strings.Repeat("x", tooLong)}})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("long message: got %v, want ResourceExhausted", err)
	}
	serves("a long message")

	up, err := servicerequestpb.NewAttachmentServiceClient(s).UploadAttachment(ctx)
	if err != nil {
		t.Fatal(err)
	}
	up.Send(&servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Chunk{Chunk: make([]byte, tooLong)}})
	if _, err = up.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("long message of a stream: got %v, want ResourceExhausted", err)
	}
	serves("a long message of a stream")

	addr := s.processes["identity"].addr
	for name, send := range map[string]func(*rawConn){
		"long headers":              func(c *rawConn) { c.headers(true, header("x-long", strings.Repeat("x", 20<<10))) },
		"many headers":              func(c *rawConn) { c.headers(true, bytes.Repeat(header("x-many", "yes"), 2000)) },
		"headers without an end":    (*rawConn).endlessHeaders,
		"a message of 4 GiB":        func(c *rawConn) { c.headers(true, nil); c.data("\x00\xff\xff\xff\xff") },
		"a message that is cut":     func(c *rawConn) { c.headers(true, nil); c.data("\x00\x00\x00\x00\x09abc") },
		"a compressed message":      func(c *rawConn) { c.headers(true, nil); c.data("\x01\x00\x00\x00\x03abc") },
		"headers that are no HPACK": func(c *rawConn) { c.frame(frameHeaders, endStream|endHeaders, 1, bytes.Repeat([]byte{0xff}, 50)) },
		"a frame of 16 MiB":         func(c *rawConn) { c.frame(frameHeaders, endHeaders, 1, make([]byte, 1<<24-1)) },
		"no HTTP/2 at all":          func(c *rawConn) { c.write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) },
	} {
		if end := speak(t, addr, send); end == "" {
			t.Errorf("%s: there was no answer", name)
		} else {
			t.Logf("%s: %s", name, end)
		}
		serves(name)
	}
}

// Of HTTP/2 (RFC 9113) what these tests send and look for.
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	frameGoAway       = 7
	frameContinuation = 9

	endStream  = 1
	endHeaders = 4
)

// rawConn is a client's side of an HTTP/2 connection that keeps to no rules.
type rawConn struct {
	net.Conn
	failed error // of a write; the server may have hung up
}

// speak opens a connection, sends something, and returns how the server answered.
func speak(t *testing.T, addr string, send func(*rawConn)) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := &rawConn{Conn: conn}
	c.write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	c.frame(frameSettings, 0, 0, nil)
	send(c)
	return c.answer()
}

func (c *rawConn) write(b []byte) {
	if c.failed == nil {
		_, c.failed = c.Write(b)
	}
}

func (c *rawConn) frame(kind, flags byte, stream uint32, payload []byte) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	c.write(append(binary.BigEndian.AppendUint32(append(head, flags), stream), payload...))
}

// headers begins a call of GetProfile, with more headers.
func (c *rawConn) headers(whole bool, more []byte) {
	block := bytes.Join([][]byte{
		header(":method", "POST"), header(":scheme", "http"), header(":path", identitypb.ProfileService_GetProfile_FullMethodName),
		header(":authority", "x"), header("content-type", "application/grpc"), header("te", "trailers"), more,
	}, nil)
	const most = 16 << 10
	first := block[:min(len(block), most)]
	rest := block[len(first):]
	flags := byte(0)
	if whole && len(rest) == 0 {
		flags = endHeaders
	}
	c.frame(frameHeaders, flags, 1, first)
	for len(rest) > 0 {
		n := min(len(rest), most)
		if flags = 0; whole && n == len(rest) {
			flags = endHeaders
		}
		c.frame(frameContinuation, flags, 1, rest[:n])
		rest = rest[n:]
	}
}

// header encodes a header as HPACK (RFC 7541) does a literal that is not indexed.
func header(name, value string) []byte {
	b := []byte{0}
	for _, s := range []string{name, value} {
		if n := len(s); n < 127 {
			b = append(b, byte(n))
		} else {
			b = append(b, 127)
			for n -= 127; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
			b = append(b, byte(n))
		}
		b = append(b, s...)
	}
	return b
}

// endlessHeaders sends headers until the server hangs up, and no more than 64 MiB.
func (c *rawConn) endlessHeaders() {
	c.headers(false, nil)
	more := header("x-more", strings.Repeat("x", 10<<10))
	for n := 0; n < 64<<20 && c.failed == nil; n += len(more) {
		c.frame(frameContinuation, 0, 1, more)
	}
}

func (c *rawConn) data(payload string) { c.frame(frameData, endStream, 1, []byte(payload)) }

// answer reads until the server ends the stream or the connection, and says how; or
// returns "" if it does neither.
func (c *rawConn) answer() string {
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return ""
			}
			return "it hung up"
		}
		payload := make([]byte, binary.BigEndian.Uint32(head)>>8)
		if _, err := io.ReadFull(c, payload); err != nil {
			return "it hung up"
		}
		switch kind, flags := head[3], head[4]; {
		case kind == frameReset:
			return "it reset the stream"
		case kind == frameGoAway:
			return "it said goodbye"
		case kind == frameHeaders && flags&endStream != 0:
			return "it answered"
		}
	}
}

// TestOddMetadata sends metadata that nobody should, and must be turned away or served.
func TestOddMetadata(t *testing.T) {
	s := one(t)
	token := "Bearer " + s.fill().Person("OW").Token
	client := identitypb.NewProfileServiceClient(s)
	for name, test := range map[string]struct {
		pairs []string
		want  codes.Code
	}{
		"two tokens":                 {[]string{"authorization", token, "authorization", "Bearer x"}, codes.OK},
		"another scheme":             {[]string{"authorization", "Basic " + token}, codes.Unauthenticated},
		"no token":                   {[]string{"authorization", "Bearer "}, codes.Unauthenticated},
		"a long token":               {[]string{"authorization", token + strings.Repeat("x", 10_000)}, codes.Unauthenticated},
		"half a token":               {[]string{"authorization", token[:30]}, codes.Unauthenticated},
		"a service without a key":    {[]string{"latchkey-service", "identity", "authorization", token}, codes.Unauthenticated},
		"a service with another key": {[]string{"latchkey-service", "identity", "latchkey-service-key", strings.Repeat("k", 40)}, codes.Unauthenticated},
		"another tenant":             {[]string{"authorization", token, "latchkey-tenant", nobodys, "latchkey-caller", nobodys}, codes.OK},
		"a long request id":          {[]string{"authorization", token, "x-request-id", strings.Repeat("\"=", 3000)}, codes.OK},
		"bytes":                      {[]string{"authorization", token, "x-bin", "\x00\xff\xfe"}, codes.OK},
	} {
		_, err := client.GetProfile(metadata.NewOutgoingContext(t.Context(), metadata.Pairs(test.pairs...)), &identitypb.GetProfileRequest{})
		if status.Code(err) != test.want {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	for _, line := range s.processes["identity"].log.alarms() {
		t.Errorf("the log has %s", line)
	}
}
