package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	invoicingpb "latchkey.dev/gen/go/latchkey/invoicing/v1"
	typepb "latchkey.dev/gen/go/latchkey/type/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/trial"
)

// books is what clerks, who work at the same time, were acknowledged by invoicing. They
// open invoices, which takes the next number, take payments, which changes an
// invoice too, and rename parts. An audit compares it with what invoicing has.
type books struct {
	t       *testing.T
	trial   *trial.Trial
	suite   *suite
	company *demo.Company

	working sync.RWMutex // held by each clerk during a call, and by an audit
	closed  chan struct{}
	ending  sync.Once
	clerks  sync.WaitGroup

	mu       sync.Mutex
	invoices map[string]string          // number by id
	payments map[string]map[string]bool // ids by invoice
	parts    map[string][]string        // by id: the name, and those that it may have instead
	given    int                        // invoices and payments whose clerk gave up
	acks     int
	heard    chan struct{} // closed and replaced with each acknowledgement
}

const clerkCount = 8

// openBooks lets clerks work until close, or the end of the test.
func openBooks(t *testing.T, tr *trial.Trial, s *suite, seed uint64) *books {
	b := &books{
		t: t, trial: tr, suite: s, company: s.fill(), closed: make(chan struct{}), heard: make(chan struct{}),
		invoices: map[string]string{}, payments: map[string]map[string]bool{}, parts: map[string][]string{},
	}
	for _, p := range b.company.Parts {
		b.parts[p.GetId()] = []string{p.GetName()}
	}
	for n := range clerkCount {
		b.clerks.Go(func() { (&clerk{books: b, n: n, random: rand.New(rand.NewPCG(seed, uint64(n)))}).work() })
	}
	t.Cleanup(b.close)
	return b
}

// close lets the clerks go home.
func (b *books) close() {
	b.ending.Do(func() { close(b.closed) })
	b.clerks.Wait()
}

// note changes the books by an acknowledgement, or by its absence.
func (b *books) note(err error, change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	if err == nil {
		b.acks++
		close(b.heard)
		b.heard = make(chan struct{})
	}
}

// await waits for so many more acknowledgements.
func (b *books) await(n int) {
	b.t.Helper()
	deadline := time.After(patience)
	b.mu.Lock()
	want := b.acks + n
	b.mu.Unlock()
	for {
		b.mu.Lock()
		acks, heard := b.acks, b.heard
		b.mu.Unlock()
		if acks >= want {
			return
		}
		select {
		case <-heard:
		case <-deadline:
			b.t.Fatalf("%d acknowledgements are missing", want-acks)
		}
	}
}

// clerk makes one call after the other.
type clerk struct {
	books   *books
	n       int
	random  *rand.Rand
	calls   int
	invoice string // that is being paid
	part    string // that is being renamed
	again   func(ctx context.Context) (proto.Message, error)
	first   proto.Message // what it was answered
}

// errGaveUp is of a call that was not repeated, so that nobody knows what came of it.
var errGaveUp = errors.New("gave up")

func (c *clerk) work() {
	for {
		select {
		case <-c.books.closed:
			return
		default:
			c.books.working.RLock()
			c.step()
			c.books.working.RUnlock()
		}
	}
}

func (c *clerk) step() {
	switch c.calls++; {
	case c.again != nil && c.random.IntN(5) == 0:
		c.repeat()
	case c.invoice == "" || c.random.IntN(10) == 0:
		c.open()
	case c.part == "" || c.random.IntN(20) == 0:
		c.add()
	case c.random.IntN(2) == 0:
		c.rename()
	default:
		c.pay()
	}
}

// insist calls until it is answered, or gives up now and then. It remembers the last call
// that was answered.
func insist[Req, Resp proto.Message](c *clerk, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) (resp Resp, err error) {
	b := c.books
	for deadline := time.Now().Add(patience); ; time.Sleep(pace) {
		ctx, cancel := context.WithTimeout(b.company.As(b.t.Context(), "OW"), 5*time.Second)
		resp, err = call(ctx, req)
		cancel()
		switch code := status.Code(err); {
		case b.t.Context().Err() != nil: // the test has ended
			return resp, errGaveUp
		case err == nil:
			c.first = resp
			c.again = func(ctx context.Context) (proto.Message, error) { return call(ctx, req) }
			return resp, nil
		case code != codes.Unavailable && code != codes.DeadlineExceeded || time.Now().After(deadline):
			b.trial.Wrong("%T: %v", req, err)
			return resp, errGaveUp
		case c.random.IntN(10) == 0:
			return resp, errGaveUp
		}
	}
}

// repeat makes the last call again, which must be answered as before.
func (c *clerk) repeat() {
	want := proto.Clone(c.first)
	got, err := insist(c, func(ctx context.Context, _ proto.Message, _ ...grpc.CallOption) (proto.Message, error) {
		return c.again(ctx)
	}, want)
	if err == nil && !proto.Equal(lasting(got), lasting(want)) {
		c.books.trial.Wrong("a repeat was answered %v, and before %v", got, want)
	}
	c.again = nil
}

func (c *clerk) open() {
	b := c.books
	req := &invoicingpb.CreateInvoiceRequest{RequestId: uuid.NewString(), Lines: []*invoicingpb.InvoiceLine{{
		Description: fmt.Sprintf("Hours of clerk %d", c.n), QuantityThousandths: 1_000_000, UnitPrice: &typepb.Money{MinorUnits: 10_000, CurrencyCode: "EUR"},
	}}}
	resp, err := insist(c, invoicesOf(b.suite).CreateInvoice, req)
	b.note(err, func() {
		if err != nil {
			b.given++
			return
		}
		c.invoice = resp.GetInvoice().GetId()
		b.invoices[c.invoice], b.payments[c.invoice] = resp.GetInvoice().GetNumber(), map[string]bool{}
	})
}

func (c *clerk) pay() {
	b := c.books
	req := &invoicingpb.RecordPaymentRequest{
		RequestId: uuid.NewString(), Id: c.invoice, Method: invoicingpb.PaymentMethod_PAYMENT_METHOD_CASH,
		Amount: &typepb.Money{MinorUnits: 1 + c.random.Int64N(50), CurrencyCode: "EUR"},
	}
	resp, err := insist(c, invoicesOf(b.suite).RecordPayment, req)
	b.note(err, func() {
		if err != nil {
			b.given++
			return
		}
		b.payments[c.invoice][resp.GetPayment().GetId()] = true
	})
}

func (c *clerk) add() {
	b := c.books
	req := &invoicingpb.CreatePartRequest{RequestId: uuid.NewString(), Name: c.name()}
	resp, err := insist(c, partsOf(b.suite).CreatePart, req)
	b.note(err, func() {
		if err != nil {
			b.given++
			return
		}
		c.part = resp.GetPart().GetId()
		b.parts[c.part] = []string{req.GetName()}
	})
}

func (c *clerk) rename() {
	b := c.books
	req := &invoicingpb.UpdatePartRequest{RequestId: uuid.NewString(), Part: &invoicingpb.Part{Id: c.part, Name: new(c.name())}}
	_, err := insist(c, partsOf(b.suite).UpdatePart, req)
	b.note(err, func() {
		if err != nil {
			b.parts[c.part] = append(b.parts[c.part], req.GetPart().GetName())
			return
		}
		b.parts[c.part] = []string{req.GetPart().GetName()}
	})
}

func (c *clerk) name() string { return fmt.Sprintf("Part %d of clerk %d", c.calls, c.n) }

func invoicesOf(s *suite) invoicingpb.InvoiceServiceClient {
	return invoicingpb.NewInvoiceServiceClient(s)
}

func partsOf(s *suite) invoicingpb.PartServiceClient { return invoicingpb.NewPartServiceClient(s) }

// audit compares the books with what invoicing has, while no clerk works.
func (b *books) audit() {
	b.t.Helper()
	b.working.Lock()
	defer b.working.Unlock()
	a := &audit{books: b, ctx: b.company.As(b.t.Context(), "OW")}
	if err := errors.Join(a.invoices(), a.parts()); err != nil {
		b.t.Fatal(err)
	}
	if a.more > b.given {
		b.trial.Wrong("%d records that nobody was told of, after %d calls that clerks gave up", a.more, b.given)
	}
}

type audit struct {
	*books
	ctx  context.Context
	more int // records that nobody was told of
}

func (a *audit) invoices() error {
	found := map[string]*invoicingpb.Invoice{}
	var numbers []string
	req := &invoicingpb.ListInvoicesRequest{View: invoicingpb.InvoiceView_INVOICE_VIEW_ALL, PageSize: 500}
	for more := true; more; more = req.PageToken != "" {
		resp, err := invoicesOf(a.suite).ListInvoices(a.ctx, req)
		if err != nil {
			return err
		}
		for _, v := range resp.GetInvoices() {
			found[v.GetId()], numbers = v, append(numbers, v.GetNumber())
		}
		req.PageToken = resp.GetNextPageToken()
	}
	slices.Sort(numbers)
	for i, number := range numbers {
		if want := fmt.Sprintf("INV-%06d", i+1); number != want {
			a.trial.Wrong("%s is missing, or is %s", want, number)
			break
		}
	}
	a.trial.Checked(len(a.books.invoices))
	for id, number := range a.books.invoices {
		switch v := found[id]; {
		case v == nil:
			a.trial.Lost("invoice %s", number)
		case v.GetNumber() != number:
			a.trial.Wrong("invoice %s has number %s", number, v.GetNumber())
		default:
			if err := a.ledger(v); err != nil {
				return err
			}
		}
	}
	a.more += len(found) - len(a.books.invoices)
	return nil
}

// ledger compares the payments of an invoice with the books, and with what it says.
func (a *audit) ledger(v *invoicingpb.Invoice) error {
	found := map[string]bool{}
	sum := int64(0)
	req := &invoicingpb.ListPaymentsRequest{InvoiceId: v.GetId(), PageSize: 500}
	for more := true; more; more = req.PageToken != "" {
		resp, err := invoicesOf(a.suite).ListPayments(a.ctx, req)
		if err != nil {
			return err
		}
		for _, p := range resp.GetPayments() {
			found[p.GetId()] = true
			sum += p.GetAmount().GetMinorUnits()
		}
		req.PageToken = resp.GetNextPageToken()
	}
	if paid := v.GetAmountPaid().GetMinorUnits(); paid != sum || v.GetTotal().GetMinorUnits()-paid != v.GetBalance().GetMinorUnits() {
		a.trial.Wrong("payments of %d on %v", sum, v)
	}
	want := a.payments[v.GetId()]
	a.trial.Checked(len(want))
	for id := range want {
		if !found[id] {
			a.trial.Lost("payment %s of invoice %s", id, v.GetNumber())
		}
	}
	a.more += len(found) - len(want)
	return nil
}

func (a *audit) parts() error {
	found := map[string]string{}
	req := &invoicingpb.ListPartsRequest{View: invoicingpb.PartView_PART_VIEW_CONTROL_PANEL, PageSize: 500}
	for more := true; more; more = req.PageToken != "" {
		resp, err := partsOf(a.suite).ListParts(a.ctx, req)
		if err != nil {
			return err
		}
		for _, p := range resp.GetParts() {
			found[p.GetId()] = p.GetName()
		}
		req.PageToken = resp.GetNextPageToken()
	}
	a.trial.Checked(len(a.books.parts))
	for id, names := range a.books.parts {
		if name, ok := found[id]; !ok {
			a.trial.Lost("part %q", names[0])
		} else if !slices.Contains(names, name) {
			a.trial.Lost("name %q of a part, which is %q", strings.Join(names, " or "), name)
		}
	}
	a.more += len(found) - len(a.books.parts)
	return nil
}
