package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"
)

// Bounds of HTTP. They are for forms, documents and tokens; nothing large comes or goes.
const (
	maxBody       = 64 << 10
	headerTime    = 10 * time.Second
	keepAliveTime = 2 * time.Minute
)

// HTTP takes the paths that parts serve beside gRPC. What is registered is served once
// the process listens.
type HTTP struct {
	// Issuer is the URL under which others reach this process, without a slash at the
	// end: "https://id.example.com".
	Issuer string

	mux      *http.ServeMux
	edge     *edge
	listener net.Listener
	server   *http.Server
	certs    certificates
	draining <-chan struct{}
}

// Handle serves a pattern of http.ServeMux. A request ends, as a call of gRPC does, after
// the longest duration that a call may take.
func (h *HTTP) Handle(pattern string, serve http.HandlerFunc) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), h.edge.timeout)
		defer cancel()
		h.edge.calls.begin()
		defer h.edge.calls.end()
		serve(w, r.WithContext(ctx))
	})
}

// Feed serves a pattern whose answer goes on. Its context ends when the process drains.
func (h *HTTP) Feed(pattern string, serve http.HandlerFunc) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		watched := make(chan struct{})
		defer func() {
			cancel()
			<-watched
		}()
		go func() {
			defer close(watched)
			select {
			case <-h.draining:
				cancel()
			case <-ctx.Done():
			}
		}()
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			h.edge.log.WarnContext(ctx, "a feed will end early", "error", err)
		}
		serve(w, r.WithContext(ctx))
	})
}

// listenHTTP opens the listener of HTTP, where it is on.
func (p *Process) listenHTTP(ctx context.Context) error {
	if p.config.HTTPListen == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.config.HTTPListen)
	if err != nil {
		return fmt.Errorf("serve HTTP on %s: %w (choose another with --http-listen)", p.config.HTTPListen, cause(err))
	}
	p.http = &HTTP{Issuer: p.config.Issuer, mux: http.NewServeMux(), listener: l, draining: p.draining}
	if p.http.Issuer == "" {
		p.http.Issuer = "http://" + l.Addr().String()
		if p.config.encrypted() {
			p.http.Issuer = "https://" + l.Addr().String()
		}
	}
	return nil
}

// assembleHTTP makes the server of HTTP ready to be registered with.
func (p *Process) assembleHTTP(certs certificates) {
	h := p.http
	if h == nil {
		return
	}
	h.edge, h.certs = p.edge, certs
	h.server = &http.Server{
		Handler:           p.edge.http(h.mux),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       headerTime + p.config.CallTimeout,
		WriteTimeout:      headerTime + p.config.CallTimeout,
		IdleTimeout:       keepAliveTime,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	if len(certs) > 0 {
		h.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certs.get}
	}
}

// run serves until the server is closed or drained.
func (h *HTTP) run(context.Context) error {
	var err error
	if len(h.certs) > 0 {
		err = h.server.ServeTLS(h.listener, "", "")
	} else {
		err = h.server.Serve(h.listener)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain takes no new connections and waits for the requests that run, and the feeds,
// until the limit.
func (h *HTTP) drain(limit context.Context) {
	if h != nil && h.server.Shutdown(limit) != nil {
		h.server.Close()
	}
}

// close ends whatever is served, however far the start came.
func (h *HTTP) close() {
	if h == nil {
		return
	}
	h.listener.Close()
	if h.server != nil {
		h.server.Close()
	}
}

// answer watches what a handler answers.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write notes that all is well unless said otherwise.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// http is what every request passes: bounds, headers, the id of the request, recovery of
// panics and the log.
//
// SECURITY: the log has the path and never the query or a body: both carry secrets.
func (e *edge) http(serve http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx := withHTTPRequest(r.Context(), e.newID, r.Header.Get(requestIDHeader))
		a := &answer{ResponseWriter: w}
		guardHeaders(w.Header(), requestID(ctx))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		defer func() {
			broken := recover()
			if broken != nil && a.status == 0 {
				http.Error(a, "the suite is at fault; its log says more under the request id "+requestID(ctx), http.StatusInternalServerError)
			}
			e.finishHTTP(ctx, r, start, a.status, broken)
		}()
		serve.ServeHTTP(a, r.WithContext(ctx))
	})
}

// guardHeaders are on every answer: nothing is kept by caches, guessed, framed or told to
// other sites, and no page runs or loads anything unless its handler allows it. No origin
// is allowed to read answers (CORS); a handler whose answer is public may allow it.
func guardHeaders(h http.Header, id string) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Request-Id", id)
}

// finishHTTP logs how a request ended.
func (e *edge) finishHTTP(ctx context.Context, r *http.Request, start time.Time, status int, broken any) {
	level, words := slog.LevelDebug, "request"
	switch {
	case broken != nil || status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable:
		level, words = slog.LevelError, "request broken"
	case status >= http.StatusBadRequest:
		level, words = slog.LevelInfo, "request refused"
	}
	if !e.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("status", status), slog.Duration("took", time.Since(start)), slog.String("peer", r.RemoteAddr),
	}
	if broken != nil {
		attrs = append(attrs, slog.String("error", fmt.Sprintf("panic: %v\n%s", broken, debug.Stack())))
	}
	e.log.LogAttrs(ctx, level, words, attrs...)
}
