package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/store/postgres/postgrestest"
	"latchkey.dev/services/internal/trial"
)

// partAs is a part as the model has it: nothing, or a name and the version that its etag
// tells, which grows. If nobody was told the version, it is the negative of one that it is
// greater than.
type partAs struct {
	version int
	name    string
}

// may tells whether the part can be what somebody was told.
func (p partAs) may(told partAs) bool {
	return p == told || p.version < 0 && p.name == told.name && told.version > -p.version
}

// before tells whether a version is later than that of the part.
func (p partAs) before(version int) bool { return version > max(p.version, -p.version) }

// asked is what a call asked of a part. A get asks for nothing.
type asked struct {
	create, update bool
	version        int    // that an update wants to find; 0 is any
	name           string // to set
}

// answer is how a call went: with the part, or refused because of the version. Of one that
// was never answered nobody knows.
type answer struct {
	partAs
	stale, unknown bool
}

// oneRecord is what the calls for one part do, one after the other. A call of which nobody
// knows may take effect at any time after it began: after all others is never.
var oneRecord = porcupine.Model{
	Init: func() any { return partAs{} },
	Step: func(state, input, output any) (bool, any) {
		was, in, out := state.(partAs), input.(asked), output.(answer)
		switch {
		case in.create:
			return was == partAs{} && out.name == in.name, out.partAs
		case !in.update:
			return was.may(out.partAs), out.partAs
		}
		fits := in.version == 0 || in.version == was.version
		switch {
		case out.stale, out.unknown && !fits:
			return !fits, was
		case out.unknown:
			return true, partAs{-max(was.version, -was.version), in.name}
		}
		return fits && out.name == in.name && was.before(out.version), out.partAs
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}

// callers call for a few parts at a time, and note when each call began and ended.
type callers struct {
	t       *testing.T
	trial   *trial.Trial
	company *demo.Company
	parts   invoicingpb.PartServiceClient
	get     func(context.Context, string) (partAs, error)
	began   time.Time
	stop    chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	current []string // ids of the parts that are called for
	history map[string][]porcupine.Operation
	weight  map[string]int // of the histories, by callsPerPart
	calls   int
}

const (
	callerCount  = 8
	currentParts = 3
	// callsPerPart keep a history short enough to be judged: then there is a new part. A
	// call whose outcome nobody knows may have been done at any time since, and so makes as
	// much work as several others.
	callsPerPart, unknownAs = 150, 20
)

func newCallers(t *testing.T, tr *trial.Trial, company *demo.Company, conn grpc.ClientConnInterface) *callers {
	c := &callers{
		t: t, trial: tr, company: company, parts: invoicingpb.NewPartServiceClient(conn), began: time.Now(), stop: make(chan struct{}),
		current: make([]string, currentParts), history: map[string][]porcupine.Operation{}, weight: map[string]int{},
	}
	c.get = c.getPart
	return c
}

// start lets them call until judge, or the end of the test.
func (c *callers) start(seed uint64) {
	for n := range callerCount {
		random := rand.New(rand.NewPCG(seed, uint64(n)))
		c.running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-c.stop:
					return
				default:
					c.call(random, fmt.Sprintf("%d.%d", n, i))
				}
			}
		})
	}
	c.t.Cleanup(c.end)
}

func (c *callers) end() {
	c.mu.Lock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.mu.Unlock()
	c.running.Wait()
}

// count returns how many calls were answered.
func (c *callers) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// await waits for so many more answers.
func (c *callers) await(n int) {
	c.t.Helper()
	want := c.count() + n
	for deadline := time.Now().Add(patience); c.count() < want; time.Sleep(pace) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%d of %d answers are missing", want-c.count(), n)
		}
	}
}

// call makes one call for one of the parts, or makes a new part.
func (c *callers) call(random *rand.Rand, name string) {
	slot := random.IntN(currentParts)
	c.mu.Lock()
	id := c.current[slot]
	fresh := id == "" || c.weight[id] >= callsPerPart
	if fresh {
		c.current[slot] = "" // until one is made
	}
	c.mu.Unlock()
	switch choice := random.IntN(10); {
	case fresh:
		c.create(random, slot, name)
	case choice < 5:
		c.read(id)
	case choice < 7:
		c.update(random, id, 0, name)
	default:
		if found, ok := c.read(id); ok {
			c.update(random, id, found.version, name)
		}
	}
}

func (c *callers) note(id string, began time.Duration, in asked, out answer) {
	op := porcupine.Operation{Input: in, Output: out, Call: int64(began), Return: int64(time.Since(c.began))}
	if out.unknown {
		op.Return = 1 << 62
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history[id] = append(c.history[id], op)
	if c.weight[id]++; out.unknown {
		c.weight[id] += unknownAs - 1
	}
	if c.calls++; !out.unknown && (in.create || in.update) {
		c.trial.Checked(1)
	}
}

func (c *callers) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.company.As(c.t.Context(), "OW"), 5*time.Second)
}

// insist calls until there is an answer. It gives up now and then.
func (c *callers) insist(random *rand.Rand, call func(context.Context) (*invoicingpb.Part, error)) (answer, error) {
	for ; ; time.Sleep(pace) {
		ctx, cancel := c.ctx()
		p, err := call(ctx)
		cancel()
		code := status.Code(err)
		switch {
		case err == nil:
			return answer{partAs: partOf(p)}, nil
		case code == codes.Aborted:
			return answer{stale: true}, nil
		case code != codes.Unavailable && code != codes.DeadlineExceeded:
			return answer{}, err
		case random.IntN(20) == 0:
			return answer{unknown: true}, nil
		}
		select {
		case <-c.stop:
			return answer{unknown: true}, nil
		default:
		}
	}
}

func partOf(p *invoicingpb.Part) partAs {
	version, _ := strconv.Atoi(p.GetEtag()) // 0 is not later than any
	return partAs{version, p.GetName()}
}

func (c *callers) create(random *rand.Rand, slot int, name string) {
	began := time.Since(c.began)
	id := ""
	req := &invoicingpb.CreatePartRequest{RequestId: uuid.NewString(), Name: name}
	out, err := c.insist(random, func(ctx context.Context) (*invoicingpb.Part, error) {
		resp, err := c.parts.CreatePart(ctx, req)
		id = resp.GetPart().GetId()
		return resp.GetPart(), err
	})
	if err != nil {
		c.trial.Wrong("create: %v", err)
	}
	if id == "" {
		return // nobody will know of it
	}
	c.note(id, began, asked{create: true, name: name}, out)
	c.mu.Lock()
	c.current[slot] = id
	c.mu.Unlock()
}

func (c *callers) update(random *rand.Rand, id string, version int, name string) {
	began := time.Since(c.began)
	req := &invoicingpb.UpdatePartRequest{RequestId: uuid.NewString(), Part: &invoicingpb.Part{Id: id, Name: &name}}
	if version > 0 {
		req.Part.Etag = strconv.Itoa(version)
	}
	out, err := c.insist(random, func(ctx context.Context) (*invoicingpb.Part, error) {
		resp, err := c.parts.UpdatePart(ctx, req)
		return resp.GetPart(), err
	})
	if err != nil {
		c.trial.Wrong("update: %v", err)
		return
	}
	c.note(id, began, asked{update: true, version: version, name: name}, out)
}

// read gets a part. What is not answered says nothing.
func (c *callers) read(id string) (found partAs, ok bool) {
	began := time.Since(c.began)
	ctx, cancel := c.ctx()
	defer cancel()
	found, err := c.get(ctx, id)
	switch code := status.Code(err); {
	case err == nil:
		c.note(id, began, asked{}, answer{partAs: found})
		return found, true
	case code == codes.NotFound:
		c.trial.Lost("part %s", id)
	case code != codes.Unavailable && code != codes.DeadlineExceeded:
		c.trial.Wrong("get: %v", err)
	}
	return partAs{}, false
}

func (c *callers) getPart(ctx context.Context, id string) (partAs, error) {
	resp, err := c.parts.GetPart(ctx, &invoicingpb.GetPartRequest{Id: id})
	return partOf(resp.GetPart()), err
}

// judgeLimit is how long the history of one part may take to be judged.
const judgeLimit = time.Minute

// judge looks for an order of the calls for each part in which all answers are right.
func (c *callers) judge() {
	c.end()
	for id, history := range c.history {
		settle(history)
		switch porcupine.CheckOperationsTimeout(oneRecord, history, judgeLimit) {
		case porcupine.Illegal:
			c.trial.Wrong("the %d calls for part %s have no order: %s", len(history), id, describe(history))
		case porcupine.Unknown:
			c.trial.Wrong("the %d calls for part %s took too long to judge", len(history), id)
		}
	}
	c.trial.Remark("%d calls for %d records", c.calls, len(c.history))
}

// settle makes known what others were told of: who was told a name, which only one call
// gives, was told too that this call was done by then, and at which version. What nobody was
// told of remains unknown.
func settle(history []porcupine.Operation) {
	unknown := map[string]*porcupine.Operation{}
	for i := range history {
		if in, out := history[i].Input.(asked), history[i].Output.(answer); out.unknown && in.update {
			unknown[in.name] = &history[i]
		}
	}
	for _, told := range history {
		out := told.Output.(answer)
		if op := unknown[out.name]; op != nil && !out.unknown && told.Return < op.Return {
			op.Output, op.Return = answer{partAs: out.partAs}, told.Return
		}
	}
}

func describe(history []porcupine.Operation) (text string) {
	for _, op := range history {
		text += fmt.Sprintf("\n%v to %v %s", time.Duration(op.Call), time.Duration(op.Return), oneRecord.DescribeOperation(op.Input, op.Output))
	}
	return text
}

// TestLinearizable kills, freezes and restarts the process of all services, and its
// database, while many call for the same few records: their answers must be those of calls
// that were made one after the other.
func TestLinearizable(t *testing.T) {
	lease := "LATCHKEY_LEASE=" + shortLease.String()
	t.Run("bolt", func(t *testing.T) {
		tr := trial.New(t, "order of the calls for a record: kill, freeze, restart", "bolt")
		linearizable(t, tr, one(t, lease), nil)
	})
	t.Run("postgres", func(t *testing.T) {
		tr := trial.New(t, "order of the calls for a record: kill, freeze, restart", "postgres")
		linearizable(t, tr, one(t, append(inDatabase(t), lease)...), nil)
	})
	t.Run("the database", func(t *testing.T) {
		tr := trial.New(t, "order of the calls for a record: kill and freeze of the database", "postgres")
		database := postgrestest.New(t)
		linearizable(t, tr, one(t, append(inDatabaseAt(t, database.URL()), lease)...), database)
	})
}

// linearizable has trouble with the database, or if there is none to have it with, with
// the process.
func linearizable(t *testing.T, tr *trial.Trial, s *suite, database *postgrestest.Cluster) {
	random := seeded(t, *seed)
	c := newCallers(t, tr, s.fill(), s)
	c.start(random.Uint64())
	p := s.processes[names[0]]
	for range trial.Times(8, 200) {
		c.await(100 + random.IntN(200))
		tr.Tried()
		frozen := time.Duration(random.Int64N(int64(2 * shortLease)))
		switch kind := random.IntN(4); {
		case database != nil && kind < 2:
			database.Kill()
			if err := database.Start(); err != nil {
				t.Fatal(err)
			}
		case database != nil:
			freeze(t, frozen, database.Signal)
		case kind < 2:
			p.kill()
			s.start(p)
			s.ready()
		case kind == 2:
			p.signal(syscall.SIGTERM)
			<-p.done
			s.start(p)
			s.ready()
		default:
			freeze(t, frozen, func(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) })
		}
	}
	c.await(100)
	c.judge()
}

func freeze(t *testing.T, howLong time.Duration, signal func(syscall.Signal) error) {
	t.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := signal(sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGSTOP {
			time.Sleep(howLong)
		}
	}
}

// TestLinearizableWithCache is a control: a client that remembers what it got, for a
// moment, must be found out.
func TestLinearizableWithCache(t *testing.T) {
	tr := trial.Control(t, "order of the calls for a record: a cache in the client", "bolt")
	s := one(t)
	c := newCallers(t, tr, s.fill(), s)
	type copyOf struct {
		part partAs
		when time.Time
	}
	var cache sync.Map
	c.get = func(ctx context.Context, id string) (partAs, error) {
		if known, ok := cache.Load(id); ok && time.Since(known.(copyOf).when) < 10*time.Millisecond {
			return known.(copyOf).part, nil
		}
		found, err := c.getPart(ctx, id)
		if err == nil {
			cache.Store(id, copyOf{found, time.Now()})
		}
		return found, err
	}
	c.start(seeded(t, *seed).Uint64())
	tr.Tried()
	c.await(1000)
	c.judge()
}
