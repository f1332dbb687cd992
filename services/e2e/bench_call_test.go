package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// aCall is one that is made again and again.
type aCall struct {
	path string
	req  func(*bench) proto.Message
	resp proto.Message // its type
}

var (
	// getPart reads one record.
	getPart = aCall{invoicingpb.PartService_GetPart_FullMethodName, func(b *bench) proto.Message {
		return &invoicingpb.GetPartRequest{Id: b.company.Parts[0].GetId()}
	}, &invoicingpb.GetPartResponse{}}

	// fixedPart is getPart with a handler that has its answer in hand: the chain alone.
	fixedPart = aCall{fixedPath, getPart.req, getPart.resp}

	// getProfile is what everybody who is signed in may call. It reads one record.
	getProfile = aCall{identitypb.ProfileService_GetProfile_FullMethodName, func(*bench) proto.Message {
		return &identitypb.GetProfileRequest{}
	}, &identitypb.GetProfileResponse{}}

	checkGrant = aCall{permissionspb.AccessService_Check_FullMethodName, func(*bench) proto.Message {
		return &permissionspb.CheckRequest{Grant: "Invoices:Void"}
	}, &permissionspb.CheckResponse{}}
)

// on returns the call over a connection.
func (c aCall) on(conn grpc.ClientConnInterface, req proto.Message) func(context.Context) error {
	return func(ctx context.Context) error {
		return conn.Invoke(ctx, c.path, req, newMessage(c.resp.ProtoReflect().Descriptor()))
	}
}

// calls measures calls by somebody signed in, through the whole chain, beside a bare server
// that gives the same answers to the same requests.
func (b *bench) calls(callers int, c aCall) finding {
	s := b.one()
	ctx := b.company.As(b.t.Context(), "OW")
	req := c.req(b)
	bare := b.echo(c, req)
	call, echo := c.on(s.conn(names[0]), req), c.on(bare.conn(names[0]), req)
	var here, there spent
	rate, ratio := beside(rounds,
		func() float64 {
			return here.during(s, func() float64 { return b.rate(callers, func(context.Context) error { return call(ctx) }) })
		},
		func() float64 { return there.during(bare, func() float64 { return b.rate(callers, echo) }) })
	b.t.Logf("of the processor a call takes %.1f µs, one of the bare server %.1f µs", here.perCall(), there.perCall())
	return finding{perSecond(rate, "calls"), ratio, "a bare grpc-go server with the same answers"}
}

// echoes measures the bare server alone.
func (b *bench) echoes(callers int) finding {
	b.one()
	req := getPart.req(b)
	echo := getPart.on(b.echo(getPart, req).conn(names[0]), req)
	measure := func() float64 { return b.rate(callers, echo) }
	rate, ratio := beside(rounds, measure, measure)
	return finding{perSecond(rate, "calls"), ratio, "itself, which tells how far ratios stray"}
}

// echo starts a bare server in a process of its own, which gives the answer that the
// suite gives to a request.
func (b *bench) echo(c aCall, req proto.Message) *suite {
	b.t.Helper()
	resp := newMessage(c.resp.ProtoReflect().Descriptor())
	if err := b.suite.Invoke(b.company.As(b.t.Context(), "OW"), c.path, req, resp); err != nil {
		b.t.Fatal(err)
	}
	return b.answering(c, req, resp)
}

// answering is echo with an answer that is known.
func (b *bench) answering(c aCall, req, resp proto.Message) *suite {
	b.t.Helper()
	answer, err := proto.Marshal(resp)
	if err != nil {
		b.t.Fatal(err)
	}
	s := newSuite(b.t, nil)
	file := filepath.Join(s.folder, "answer")
	if err := os.WriteFile(file, answer, 0o600); err != nil {
		b.t.Fatal(err)
	}
	s.env = []string{echoEnv + "=" + c.path + "=" + file}
	p := s.newProcess([]string{echoPart})
	for _, name := range names {
		s.processes[name] = p
	}
	s.start(p)
	if err := s.conn(names[0]).Invoke(b.t.Context(), c.path, req, resp, grpc.WaitForReady(true)); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// spent is what a process used of the processor for calls. Unlike their rate it hardly
// depends on what else the machine does.
type spent struct{ seconds, calls float64 }

func (u *spent) during(s *suite, rate func() float64) float64 {
	before, start := s.processor(), time.Now()
	calls := rate()
	u.calls += calls * time.Since(start).Seconds()
	u.seconds += s.processor() - before
	return calls
}

func (u *spent) perCall() float64 { return u.seconds / u.calls * 1e6 }

// processor returns the seconds that the suite's process has used of it.
func (s *suite) processor() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.processes[names[0]].cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	user, _ := strconv.ParseFloat(fields[12], 64)
	system, _ := strconv.ParseFloat(fields[13], 64)
	return (user + system) / 100
}
