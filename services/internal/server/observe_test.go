package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
)

// handler makes a method of the suite fail as a test says.
func failing(f func(context.Context) error) func(context.Context, *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
	return func(ctx context.Context, _ *invoicingpb.GetPartRequest) (*invoicingpb.GetPartResponse, error) {
		return &invoicingpb.GetPartResponse{}, f(ctx)
	}
}

func withID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
}

// What went wrong inside goes to the log and not to the caller, and both name the
// request.
func TestBrokenHandler(t *testing.T) {
	for name, f := range map[string]func(context.Context) error{
		"an error":                       func(context.Context) error { return errors.New("open /var/lib/secret") },
		"a status of another service":    func(context.Context) error { return status.Error(codes.NotFound, "the secret") },
		"an end of somebody else's call": func(context.Context) error { return fmt.Errorf("secret: %w", context.Canceled) },
		"a panic":                        func(context.Context) error { panic("the secret") },
		"a panic with an error":          func(context.Context) error { panic(errors.New("the secret")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSuite()
			s.getPart = failing(f)
			p, j := startLogged(t, config(t), s.parts()...)
			conn, ctx := dial(t, p.Addr()), s.signIn(t.Context())
			err := getPart(withID(ctx, "chosen-1"), conn)
			st := status.Convert(err)
			if st.Code() != codes.Internal || reason(err) != "INTERNAL" || st.Message() != "the suite is at fault; its log has more under request id chosen-1" {
				t.Errorf("got %v", err)
			}
			if text := fmt.Sprint(st.Proto()); strings.Contains(text, "secret") || strings.Contains(text, "goroutine") || strings.Contains(text, ".go:") {
				t.Errorf("the caller is told %s", text)
			}
			lines := j.lines("level=ERROR", `msg="call broken"`, "method=latchkey.invoicing.v1.PartService/GetPart", "code=Internal", "request_id=chosen-1", "peer=127.0.0.1:")
			if len(lines) != 1 || name != "a panic with an error" && !strings.Contains(lines[0], "secret") {
				t.Errorf("the log has %q, want one line with what happened", lines)
			}
			if strings.HasPrefix(name, "a panic") && !strings.Contains(strings.Join(lines, ""), "observe_test.go") {
				t.Errorf("the log does not say where: %q", lines)
			}
			s.getPart = nil
			if err := getPart(ctx, conn); err != nil {
				t.Errorf("afterwards: got %v, want the process to go on", err)
			}
		})
	}
}

func TestRefusalIsLogged(t *testing.T) {
	s := newSuite()
	s.getPart = failing(func(context.Context) error { return fmt.Errorf("secret: %w", fault.NotFound("part", "7")) })
	p, j := startLogged(t, config(t), s.parts()...)
	if err := getPart(withID(s.signIn(t.Context()), "chosen-2"), dial(t, p.Addr())); status.Code(err) != codes.NotFound || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want NotFound", err)
	}
	if got := j.lines("level=INFO", `msg="call refused"`, "request_id=chosen-2", "code=NotFound", "why="); len(got) != 1 {
		t.Errorf("the log has %q, want one line", got)
	}
	if err := getPart(withID(t.Context(), "chosen-3"), dial(t, p.Addr())); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, want Unauthenticated", err)
	}
	if got := j.lines(`msg="call refused"`, "request_id=chosen-3", "code=Unauthenticated"); len(got) != 1 {
		t.Errorf("the log has %q, want one line", got)
	}
}

// A call's id is in every line that is logged for it, and goes along to other services.
func TestRequestID(t *testing.T) {
	const made = `[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`
	s := newSuite()
	var env *server.Env
	s.onStart = func(e *server.Env) error { env = e; return nil }
	s.getPart = failing(func(ctx context.Context) error {
		env.Log.With("of", "handler").WithGroup("group").InfoContext(ctx, "said", "by", "handler")
		_, err := invoicingpb.NewPartServiceClient(env.Conn("invoicing")).LookupParts(ctx, &invoicingpb.LookupPartsRequest{})
		return err
	})
	s.lookupParts = func(ctx context.Context, _ *invoicingpb.LookupPartsRequest) (*invoicingpb.LookupPartsResponse, error) {
		env.Log.InfoContext(ctx, "looked up")
		return &invoicingpb.LookupPartsResponse{}, nil
	}
	for name, c := range map[string]struct{ sent, want string }{
		"chosen":             {"chosen-4", "chosen-4"},
		"none":               {"", made},
		"too long":           {strings.Repeat("x", 101), made},
		"with blanks":        {"a b", made},
		"as long as it may":  {strings.Repeat("x", 100), strings.Repeat("x", 100)},
		"with other letters": {"a~!", "a~!"},
	} {
		t.Run(name, func(t *testing.T) {
			p, j := startLogged(t, config(t), s.parts()...)
			ctx := s.signIn(t.Context())
			if c.sent != "" {
				ctx = withID(ctx, c.sent)
			}
			if err := getPart(ctx, dial(t, p.Addr())); err != nil {
				t.Fatal(err)
			}
			ids := map[string]bool{}
			for _, line := range [][]string{j.lines("msg=said"), j.lines(`msg="looked up"`), j.lines("msg=call ", "PartService/GetPart"), j.lines("msg=call ", "PartService/LookupParts")} {
				if len(line) != 1 {
					t.Fatalf("got the lines %q, want one", line)
				}
				m := regexp.MustCompile(`request_id=(\S+)`).FindAllStringSubmatch(line[0], -1)
				if len(m) != 1 || !regexp.MustCompile("^"+c.want+"$").MatchString(m[0][1]) {
					t.Fatalf("got %q, want it to have the id %s once", line[0], c.want)
				}
				ids[m[0][1]] = true
			}
			if len(ids) != 1 {
				t.Errorf("got the ids %v for one call", ids)
			}
		})
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{
		"text": `^time=\S+ level=INFO msg=said request_id=chosen-5\n$`,
		"json": `^{"time":"\S+","level":"INFO","msg":"said","request_id":"chosen-5"}\n$`,
	} {
		var out strings.Builder
		c := server.Defaults()
		c.LogFormat = format
		log := slog.New(server.RequestLog(server.NewLog(&c, &out).Handler()))
		ctx := server.WithRequest(metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-request-id", "chosen-5")), nil)
		log.InfoContext(ctx, "said")
		log.DebugContext(ctx, "not said")
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("%s: got %q, want %s", format, out.String(), want)
		}
	}
}

func TestMetrics(t *testing.T) {
	c := config(t)
	c.MetricsListen = freeAddr(t)
	s := newSuite()
	p := start(t, c, s.parts()...)
	conn := dial(t, p.Addr())
	if err := getPart(s.signIn(t.Context()), conn); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		err := conn.Invoke(t.Context(), fmt.Sprintf("/made.up/Name%d", i), &invoicingpb.GetPartRequest{}, &invoicingpb.GetPartResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("a made-up method: got %v, want Unimplemented", err)
		}
	}
	text := fetch(t, "http://"+c.MetricsListen+"/metrics")
	for _, want := range []string{
		`grpc_server_handled_total{grpc_code="OK",grpc_method="GetPart",grpc_service="latchkey.invoicing.v1.PartService",grpc_type="unary"} 1`,
		`latchkey_lease_held{source="identity"} 1`,
		`latchkey_lease_held{source="permissions"} 1`,
		`latchkey_lease_entries{source="permissions"} 1`,
		"go_goroutines ", "process_open_fds ", "grpc_server_handling_seconds_bucket{",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	// Whoever makes up names must not fill the memory.
	if strings.Contains(text, "made") || strings.Contains(text, "Name1") {
		t.Error("the metrics count made-up methods by name")
	}
	if resp, err := http.Get("http://" + c.MetricsListen + "/"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("elsewhere: got %v, %v, want 404", resp, err)
	} else {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s, %v", resp.Status, err)
	}
	return string(text)
}

// collector keeps the spans that are sent to it.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*tracepb.Span
	names map[string]bool // of the processes
}

func (c *collector) Export(_ context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		for _, a := range r.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				c.names[a.GetValue().GetStringValue()] = true
			}
		}
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

// Spans of a call and of the calls that it makes are one trace at the collector.
func TestTracing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	spans := &collector{names: map[string]bool{}}
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	coltracepb.RegisterTraceServiceServer(g, spans)
	served := inBackground(func() error { return g.Serve(l) })
	defer func() { g.Stop(); served() }()

	s := newSuite()
	var env *server.Env
	s.onStart = func(e *server.Env) error { env = e; return nil }
	s.getPart = failing(func(ctx context.Context) error {
		_, err := invoicingpb.NewPartServiceClient(env.Conn("invoicing")).LookupParts(ctx, &invoicingpb.LookupPartsRequest{})
		return err
	})
	c := config(t)
	c.TraceEndpoint = "http://" + l.Addr().String()
	p := start(t, c, s.parts()...)
	if err := getPart(s.signIn(t.Context()), dial(t, p.Addr())); err != nil {
		t.Fatal(err)
	}
	p.Stop() // which sends the last

	traces := map[string]string{} // by kind and name
	spans.mu.Lock()
	defer spans.mu.Unlock()
	for _, span := range spans.spans {
		traces[span.GetKind().String()+" "+span.GetName()] = string(span.GetTraceId())
	}
	want := traces["SPAN_KIND_SERVER latchkey.invoicing.v1.PartService/GetPart"]
	for _, name := range []string{"SPAN_KIND_CLIENT latchkey.invoicing.v1.PartService/LookupParts", "SPAN_KIND_SERVER latchkey.invoicing.v1.PartService/LookupParts"} {
		if got, ok := traces[name]; !ok || want == "" || got != want {
			t.Errorf("%s: got trace %x, want that of GetPart, %x", name, got, want)
		}
	}
	if !spans.names["latchkey"] {
		t.Errorf("the spans are of %v, want latchkey", spans.names)
	}
}

// What health checks ask for every few seconds is nobody's fault.
func TestHealthOfAnUnknownService(t *testing.T) {
	p, j := startLogged(t, config(t), newSuite().parts()...)
	_, err := healthpb.NewHealthClient(dial(t, p.Addr())).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
	if got := j.lines("call broken"); len(got) > 0 {
		t.Errorf("the log says %q", got)
	}
}
