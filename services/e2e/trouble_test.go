package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// change is something that the owner can take from the subject, and maybe give back.
type change struct {
	what      string
	registers []*register
	take      func(ctx context.Context, requestID string) error
	give      func(ctx context.Context, requestID string) error
	before    func(ctx context.Context, requestID string) error // what needs doing first, and takes nothing
	after     func(ctx context.Context, requestID string) error // what needs doing before the next
	needs     string                                            // a service that permissions asks in order to make it
}

// concerns tells whether a service can see the change, and can be troubled while it is made;
// any if none is named.
func (c change) concerns(service string) bool {
	if service == c.needs && service != "" {
		return false
	}
	return service == "" || slices.ContainsFunc(c.registers, func(r *register) bool { return r.service == service })
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

// insist repeats a call under one request id until it is answered.
func (w *watch) insist(what string, call func(ctx context.Context, requestID string) error) error {
	id := uuid.NewString()
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(w.company.As(w.t.Context(), "OW"), 5*time.Second)
		err := call(ctx, id)
		cancel()
		switch code := status.Code(err); {
		case err == nil:
			return nil
		case code != codes.Unavailable && code != codes.DeadlineExceeded || time.Now().After(deadline):
			return fmt.Errorf("%s: %w", what, err)
		}
		time.Sleep(pace)
	}
}

// trouble is what goes wrong while something is taken away.
type trouble struct {
	name   string
	strike func(w *watch, victim string)
	heal   func(w *watch, victim string)
	// meanwhile is true of what comes and goes while the change is being made. All other
	// trouble is there before the change begins and stays until after it has returned.
	meanwhile bool
	// mute is true if the victim cannot answer until it is healed.
	mute bool
}

// troubles of a source, identity or permissions, and its subscribers.
func troubles(source string) (ofSubscribers, ofSource []trouble) {
	via := func(w *watch, victim string) *proxy { return w.suite.processes[victim].via[source] }
	held := func(name string, directions ...int) trouble {
		return trouble{name: name,
			strike: func(w *watch, victim string) { via(w, victim).hold(directions...) },
			heal:   func(w *watch, victim string) { via(w, victim).release(directions...) },
		}
	}
	killed := trouble{name: "killed", meanwhile: true, mute: true,
		strike: func(w *watch, victim string) { w.suite.processes[victim].kill() },
		heal: func(w *watch, victim string) {
			w.suite.start(w.suite.processes[victim])
			w.suite.readyOne(victim)
		},
	}
	frozen := trouble{name: "frozen", mute: true,
		strike: func(w *watch, victim string) { w.suite.processes[victim].signal(syscall.SIGSTOP) },
		heal:   func(w *watch, victim string) { w.suite.processes[victim].signal(syscall.SIGCONT) },
	}
	away := killed
	away.name, away.meanwhile = "away", false
	ofSubscribers = []trouble{frozen, killed, away,
		{name: "cut off",
			strike: func(w *watch, victim string) { via(w, victim).refuse(true) },
			heal:   func(w *watch, victim string) { via(w, victim).refuse(false) },
		},
		held("not heard", there), held("not told", back), held("without a network", there, back),
	}
	frozenSource := frozen
	frozenSource.meanwhile = true
	frozenSource.heal = func(w *watch, victim string) {
		// Until its subscribers have noticed, and so for longer than a lease.
		others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == victim })
		w.wait(w.t, w.now(), w.subject.Load().of(others...), refused)
		frozen.heal(w, victim)
	}
	return ofSubscribers, []trouble{killed, frozenSource}
}

var nothing = trouble{name: "nothing", strike: func(*watch, string) {}, heal: func(*watch, string) {}}

// round takes something from the subject while there is trouble, and gives it back.
func (w *watch) round(tr trouble, victim string, c change) {
	w.t.Helper()
	if c.before != nil {
		w.must(w.insist(c.what, c.before))
	}
	w.wait(w.t, w.now(), c.registers, allowed)
	if tr.meanwhile {
		w.during(tr, victim, c.what, c.registers, false, c.take)
	} else {
		tr.strike(w, victim)
		w.make(c.what, c.registers, false, c.take)
		w.endure(tr, victim, c.registers)
	}
	w.wait(w.t, w.now(), c.registers, denied)
	if c.after != nil {
		w.must(w.insist(c.what, c.after))
	}
	if c.give == nil {
		return
	}
	if tr.meanwhile {
		w.during(tr, victim, c.what, c.registers, true, c.give)
	} else {
		w.make(c.what, c.registers, true, c.give)
	}
	w.wait(w.t, w.now(), c.registers, allowed)
}

func (w *watch) make(what string, rs []*register, allowed bool, call func(context.Context, string) error) {
	w.t.Helper()
	if err := w.write(allowed, rs, func() error { return w.insist(what, call) }); err != nil {
		w.t.Fatal(err)
	}
}

// during makes a change, and trouble at any moment of it.
func (w *watch) during(tr trouble, victim, what string, rs []*register, allowed bool, call func(context.Context, string) error) {
	w.t.Helper()
	made := make(chan error, 1)
	go func() { made <- w.write(allowed, rs, func() error { return w.insist(what, call) }) }()
	time.Sleep(time.Duration(w.random.Int64N(int64(10 * time.Millisecond))))
	tr.strike(w, victim)
	tr.heal(w, victim)
	if err := <-made; err != nil {
		w.t.Fatal(err)
	}
}

// endure looks at what happens between the moment when a change has returned and the
// end of the trouble, and ends it.
func (w *watch) endure(tr trouble, victim string, rs []*register) {
	w.t.Helper()
	returned := w.now()
	var others, hit []*register
	for _, r := range rs {
		if r.service == victim {
			hit = append(hit, r)
		} else {
			others = append(others, r)
		}
	}
	w.wait(w.t, returned, others, denied)
	if !tr.mute {
		w.wait(w.t, returned, hit, denied, refused)
		tr.heal(w, victim)
		return
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	calls := w.send(ctx, victim, 5)
	tr.heal(w, victim)
	w.answers(victim, calls)
}

// troubled goes through all trouble with a source. The other source must be well, or
// the owner himself could not be known, and so take nothing.
func (w *watch) troubled(source, other string, next func(victim string) change) {
	w.t.Helper()
	subscribers := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == source })
	leaves := slices.DeleteFunc(slices.Clone(subscribers), func(n string) bool { return n == other })
	ofSubscribers, ofSource := troubles(source)
	for range times(1, 20) {
		for _, tr := range ofSubscribers {
			victims := subscribers
			if tr.mute && !tr.meanwhile {
				victims = leaves
			}
			victim := pick(w.random, victims)
			w.struck(tr, victim, next(victim))
		}
		for _, tr := range ofSource {
			w.struck(tr, source, next(""))
		}
	}
}

func (w *watch) struck(tr trouble, victim string, c change) {
	w.t.Helper()
	before := w.now()
	w.trial.Tried()
	w.trial.Checked(len(c.registers))
	w.round(tr, victim, c)
	w.t.Logf("%s %s while %s was taken: %s", victim, tr.name, c.what, w.now()-before)
}
