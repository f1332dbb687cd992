package authz_test

import (
	"bytes"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestPaths writes HTTP/2 by hand, since no gRPC client sends such a :path. A server
// that looks a method up in one spelling and its rule in another lets everybody in
// (CVE-2026-33186).
func TestPaths(t *testing.T) {
	shop := &shopServer{}
	s := shopOf(t, shop)
	person := s.As("Invoices:Void").Token
	const unimplemented, unauthenticated = "12", "16"
	for _, c := range []struct{ path, token, status string }{
		{method("Void"), "", unauthenticated},
		{method("Void"), person, "0"},
		{method("Void")[1:], "", unimplemented},
		{method("Void")[1:], person, unimplemented},
		{method("Lookup")[1:], person, unimplemented},
		{method("Greet")[1:], "", unimplemented},
		{method("Watch")[1:], "", unimplemented},
		{"/" + method("Void"), "", unimplemented},
		{"/." + method("Void"), "", unimplemented},
		{method("Void") + "/", "", unimplemented},
		{method("Void") + "?x=1", "", unimplemented},
		{method("Void") + "%00", "", unimplemented},
		{"/" + shopService + "%2FVoid", "", unimplemented},
		{"/" + shopService + "/void", "", unimplemented},
		{"/latchkey.test.shop.v1.shopservice/Void", "", unimplemented},
		{"/", "", unimplemented},
		{"//", "", unimplemented},
		{"*", "", unimplemented},
		{"/\xff/\xfe", "", unimplemented},
	} {
		t.Run(c.path, func(t *testing.T) {
			if got := h2Call(t, s.Addr(), c.path, c.token); got != c.status {
				t.Errorf("%q with token %q: got grpc-status %q, want %s", c.path, c.token, got, c.status)
			}
			if got := shop.reached(); len(got) > 0 != (c.status == "0") {
				t.Errorf("%q reached %v", c.path, got)
			}
		})
	}
}

// h2Call sends an empty message to a path and returns the grpc-status, or what else
// ended the stream.
func h2Call(t *testing.T, addr, path, token string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	fields := [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "localhost"},
		{"content-type", "application/grpc+proto"}, {"te", "trailers"},
	}
	if token != "" {
		fields = append(fields, [2]string{"authorization", "Bearer " + token})
	}
	for _, f := range fields {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true})
	framer.WriteData(1, true, make([]byte, 5))
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame:
			return "reset " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "gone " + f.ErrCode.String()
		}
	}
}
