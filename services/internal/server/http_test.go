package server_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey.dev/services/internal/server"
)

// serveHTTP starts a process whose part serves HTTP.
func serveHTTP(t *testing.T, c server.Config, register func(*server.HTTP)) (*server.Process, *journal) {
	t.Helper()
	s := newSuite()
	s.onStart = func(env *server.Env) error {
		register(env.HTTP)
		return nil
	}
	c.HTTPListen = "127.0.0.1:0"
	return startLogged(t, c, s.parts()...)
}

// get sends a request and returns the answer with its body.
func get(t *testing.T, client *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestHTTPIsOffByDefault(t *testing.T) {
	s := newSuite()
	s.onStart = func(env *server.Env) error {
		if env.HTTP != nil {
			t.Error("a part is offered HTTP that nobody asked for")
		}
		return nil
	}
	if p := start(t, config(t), s.parts()...); p.Issuer() != "" {
		t.Errorf("the issuer is %q, want none", p.Issuer())
	}
}

// What every answer has, whoever gives it, and what every request is held to.
func TestHTTPAnswers(t *testing.T) {
	p, j := serveHTTP(t, config(t), func(h *server.HTTP) {
		h.Handle("POST /echo", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, "too long", http.StatusRequestEntityTooLarge)
				return
			}
			w.Write(body)
		})
		h.Handle("/panic", func(http.ResponseWriter, *http.Request) { panic("secret reason") })
	})
	for name, c := range map[string]struct {
		path, body string
		want       int
	}{
		"a handler's": {"/echo?code=secret-code", "hello", 200}, "nobody's": {"/else", "", 404}, "a panic's": {"/panic", "", 500},
		"too long": {"/echo", strings.Repeat("x", 64<<10+1), 413},
	} {
		req := request(t, "POST", p.Issuer()+c.path, strings.NewReader(c.body))
		req.Header.Set("X-Request-Id", "chosen")
		req.Header.Set("Origin", "https://elsewhere.example")
		resp, body := get(t, http.DefaultClient, req)
		if resp.StatusCode != c.want || c.want == 200 && body != c.body {
			t.Errorf("%s: got %d %q, want %d", name, resp.StatusCode, body, c.want)
		}
		for header, want := range map[string]string{
			"X-Request-Id": "chosen", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
			"Referrer-Policy": "no-referrer", "Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") || strings.Contains(body, "secret reason") {
			t.Errorf("%s: got %v %q", name, resp.Header, body)
		}
	}
	if got := j.lines("secret reason"); len(got) != 1 || !strings.Contains(got[0], "request_id=chosen") {
		t.Errorf("of the panic the log says %q, want one line with the id", got)
	}
	if got := j.lines("secret-code"); len(got) != 0 {
		t.Errorf("a query is in the log: %q", got)
	}
	req := request(t, "GET", p.Issuer()+"/else", nil)
	req.Header.Set("X-Request-Id", strings.Repeat("x", 101))
	if resp, _ := get(t, http.DefaultClient, req); len(resp.Header.Get("X-Request-Id")) != 36 {
		t.Errorf("an id that is too long gives %q, want a new one", resp.Header.Get("X-Request-Id"))
	}
	req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	if resp, _ := get(t, http.DefaultClient, req); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("long headers: got %d, want 431", resp.StatusCode)
	}
}

// While a process drains, running requests end well, feeds are told to end, and nobody
// new is let in.
func TestHTTPDrains(t *testing.T) {
	entered, finish, told := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p, _ := serveHTTP(t, config(t), func(h *server.HTTP) {
		h.Handle("/slow", func(w http.ResponseWriter, _ *http.Request) {
			entered <- struct{}{}
			<-finish
			io.WriteString(w, "done")
		})
		h.Feed("/feed", func(_ http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-r.Context().Done()
			close(told)
		})
	})
	result := inBackground(func() error {
		resp, body := get(t, http.DefaultClient, request(t, "GET", p.Issuer()+"/slow", nil))
		if resp.StatusCode != 200 || body != "done" {
			t.Errorf("the running request: got %d %q", resp.StatusCode, body)
		}
		return nil
	})
	feed := inBackground(func() error {
		get(t, http.DefaultClient, request(t, "GET", p.Issuer()+"/feed", nil))
		return nil
	})
	<-entered
	<-entered
	stopped := inBackground(func() error { p.Stop(); return nil })
	other := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for { // it takes no new connection once it no longer listens
		resp, err := other.Do(request(t, "GET", p.Issuer()+"/else", nil))
		if err != nil {
			break
		}
		resp.Body.Close()
	}
	close(finish)
	result()
	<-told
	feed()
	stopped()
}

func TestHTTPOverTLS(t *testing.T) {
	c := config(t)
	c.TLSCert, c.TLSKey = selfSigned(t, t.TempDir(), 1)
	p, _ := serveHTTP(t, c, func(*server.HTTP) {})
	pool := x509.NewCertPool()
	text, err := os.ReadFile(c.TLSCert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, ForceAttemptHTTP2: true}}
	resp, _ := get(t, client, request(t, "GET", p.Issuer(), nil))
	if resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 || !strings.HasPrefix(p.Issuer(), "https://") {
		t.Errorf("got %s over TLS %x from %s, want HTTP/2 over TLS 1.3", resp.Proto, resp.TLS.Version, p.Issuer())
	}
}

// A request ends after the longest duration of a call.
func TestHTTPRequestHasItsTime(t *testing.T) {
	c := config(t)
	c.CallTimeout = 10 * time.Millisecond
	p, _ := serveHTTP(t, c, func(h *server.HTTP) {
		h.Handle("/long", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	})
	if resp, _ := get(t, http.DefaultClient, request(t, "GET", p.Issuer()+"/long", nil)); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", resp.StatusCode)
	}
}

// The box that seals is the same after a restart, and its file is nobody else's.
func TestSealKey(t *testing.T) {
	c := config(t)
	var sealed []byte
	for range 2 {
		s := newSuite()
		s.onStart = func(env *server.Env) error {
			box, err := env.Seal()
			if err != nil {
				return err
			}
			if sealed == nil {
				sealed = box.Seal("name", []byte("secret"))
			}
			got, err := box.Open("name", sealed)
			if !bytes.Equal(got, []byte("secret")) {
				t.Errorf("got %q, %v, want the secret", got, err)
			}
			return nil
		}
		start(t, c, s.parts()...).Stop()
	}
	info, err := os.Stat(filepath.Join(strings.TrimPrefix(c.Store, "bolt:"), "seal.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file that only its owner can read", info, err)
	}
	c.SealKeyFile = filepath.Join(t.TempDir(), "none")
	s := newSuite()
	s.onStart = func(env *server.Env) error {
		_, err := env.Seal()
		return err
	}
	if _, err := server.Start(t.Context(), c, s.parts(), server.Options{}); err == nil {
		t.Error("a file that is not there was accepted")
	}
}
