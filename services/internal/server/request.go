package server

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// requestIDHeader carries the id under which a call is found in the logs of every
// service that it passed through. A caller may choose it; else the first service does.
const requestIDHeader = "x-request-id"

// maxRequestID is how long an id may be that a caller chose.
const maxRequestID = 100

type requestKey struct{}

// request is what a process knows of a call beside its caller. Most calls end without
// anybody asking for their id, so it is made when it is asked for.
type request struct {
	newID func() string
	once  sync.Once
	id    string // as the caller of HTTP chose it, before once has run
}

// withHTTPRequest is withRequest for HTTP, whose callers choose an id by a header.
func withHTTPRequest(ctx context.Context, newID func() string, chosen string) context.Context {
	if !canPassOn(chosen) {
		chosen = ""
	}
	return context.WithValue(ctx, requestKey{}, &request{newID: newID, id: chosen})
}

func withRequest(ctx context.Context, newID func() string) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{newID: newID})
}

// requestID returns the id of the call that the context belongs to; empty outside calls.
func requestID(ctx context.Context) string {
	r, ok := ctx.Value(requestKey{}).(*request)
	if !ok {
		return ""
	}
	r.once.Do(func() {
		if r.id == "" {
			r.id = chosenID(ctx)
		}
		if r.id == "" {
			r.id = r.newID()
		}
	})
	return r.id
}

// chosenID returns the id that the caller chose, if it can be passed on.
func chosenID(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, requestIDHeader)
	if len(values) == 0 || !canPassOn(values[0]) {
		return ""
	}
	return values[0]
}

// canPassOn tells whether an id that somebody chose is fit for logs and headers.
func canPassOn(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(id) <= maxRequestID
}

// requestStream is a stream whose context knows its request.
type requestStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context of the handler.
func (s *requestStream) Context() context.Context { return s.ctx }

// requestLog adds the id of the call to whatever is logged with its context.
type requestLog struct{ slog.Handler }

// Handle writes a record.
func (l requestLog) Handle(ctx context.Context, r slog.Record) error {
	if id := requestID(ctx); id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs returns the handler with attributes.
func (l requestLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestLog{l.Handler.WithAttrs(attrs)}
}

// WithGroup returns the handler with a group.
func (l requestLog) WithGroup(name string) slog.Handler { return requestLog{l.Handler.WithGroup(name)} }
