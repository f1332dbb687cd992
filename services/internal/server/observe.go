package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"latchkey.dev/services/internal/fault"
)

// edge is the outermost interceptor but metrics: it bounds a call's time, turns what
// went wrong inside into what the caller may see, and logs it.
type edge struct {
	log     *slog.Logger
	timeout time.Duration
	newID   func() string
	calls   running // all but the feeds
}

func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	e.calls.begin()
	defer e.calls.end()
	start := time.Now()
	if deadline, ok := ctx.Deadline(); !ok || deadline.After(start.Add(e.timeout)) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(e.timeout))
		defer cancel()
	}
	ctx = withRequest(ctx, e.newID)
	resp, err := handler(ctx, req)
	return resp, e.finish(ctx, info.FullMethod, start, err)
}

func (e *edge) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !slices.Contains(feeds, info.FullMethod) {
		e.calls.begin()
		defer e.calls.end()
	}
	start := time.Now()
	ctx := withRequest(ss.Context(), e.newID)
	return e.finish(ctx, info.FullMethod, start, handler(srv, &requestStream{ss, ctx}))
}

// finish logs how a call ended and returns what its caller is told. A call that went
// well is logged only where every call is asked for.
func (e *edge) finish(ctx context.Context, method string, start time.Time, err error) error {
	if err == nil {
		if e.log.Enabled(ctx, slog.LevelDebug) {
			e.log.LogAttrs(ctx, slog.LevelDebug, "call", attributes(ctx, method, start, codes.OK)...)
		}
		return nil
	}
	sealed, broken := e.seal(ctx, method, err)
	attrs := attributes(ctx, method, start, status.Code(sealed))
	if broken != nil {
		e.log.LogAttrs(ctx, slog.LevelError, "call broken", append(attrs, slog.String("error", broken.Error()))...)
	} else {
		e.log.LogAttrs(ctx, slog.LevelInfo, "call refused", append(attrs, slog.String("why", status.Convert(sealed).Message()))...)
	}
	return sealed
}

// seal turns an error into what the caller may see. Health and reflection, which are
// gRPC's own, answer with statuses that are meant for callers.
func (e *edge) seal(ctx context.Context, method string, err error) (sealed, broken error) {
	if st, ok := status.FromError(err); ok && strings.HasPrefix(method, "/grpc.") {
		return st.Err(), nil
	}
	return fault.Seal(ctx, err, requestID(ctx))
}

func attributes(ctx context.Context, method string, start time.Time, code codes.Code) []slog.Attr {
	attrs := []slog.Attr{
		slog.String("method", strings.TrimPrefix(method, "/")), slog.String("code", code.String()),
		slog.Duration("took", time.Since(start)),
	}
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	return attrs
}

// recovered makes a panic of a handler an error that says where; the process goes on.
func recovered(_ context.Context, p any) error {
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}

func recovering() recovery.Option { return recovery.WithRecoveryHandlerContext(recovered) }

func newLog(c *Config, out io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
