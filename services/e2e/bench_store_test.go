package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/bolt"
)

// creating returns a call that stores a service request, with its journal, its index
// entries and the answer that a repeat would get.
func (b *bench) creating() func(context.Context) error {
	client := servicerequestpb.NewServiceRequestServiceClient(b.one())
	ctx := b.company.As(b.t.Context(), "PM")
	newID := server.NewIDs(time.Now)
	return func(context.Context) error {
		_, err := client.CreateServiceRequest(ctx, &servicerequestpb.CreateServiceRequestRequest{
			RequestId: newID(), PropertyId: b.company.Properties[0].GetId(), Title: "Radiator stays cold",
			Description: "The one in the hall, since Monday. Please ring at the neighbour's if nobody opens.",
		})
		return err
	}
}

func (b *bench) creates(callers int) finding {
	create := b.creating()
	rate, ratio := beside(rounds, func() float64 { return b.rate(callers, create) }, b.syncs())
	return finding{perSecond(rate, "creates"), ratio, "4 KiB appended to a file and fdatasynced, in the same folder, a second"}
}

func (b *bench) createsAlone() finding {
	create, syncs := b.creating(), b.syncs()
	seconds, ratio := beside(rounds, func() float64 { return 1 / b.rate(1, create) }, func() float64 { return 2 / syncs() })
	took := time.Duration(seconds * float64(time.Second))
	return finding{milliseconds(took) + " a create", ratio, "4 KiB appended to a file and fdatasynced, in the same folder, twice"}
}

// syncs returns a measurement of how often a second the disk makes 4 KiB durable in
// the folder of the suite's stores, as a log would be written.
func (b *bench) syncs() func() float64 {
	f, err := os.OpenFile(filepath.Join(b.one().folder, "sync"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { f.Close() })
	page := make([]byte, 4096)
	rand.Read(page)
	return func() float64 {
		if err := f.Truncate(0); err != nil {
			b.t.Fatal(err)
		}
		return b.rate(1, func(context.Context) error {
			if _, err := f.Write(page); err != nil {
				return err
			}
			return syscall.Fdatasync(int(f.Fd()))
		})
	}
}

// fill puts n records into the file of a service that is not running, many in a
// transaction, and lets the service's schema build its indexes.
func (b *bench) fill(s *suite, service, tenant string, n int, schema *store.Schema, put func(tx *store.Tx, i int) error) {
	b.t.Helper()
	ctx := store.WithOrigin(b.t.Context(), store.Origin{Tenant: tenant, Method: "benchmark"})
	open := func(schema *store.Schema) *store.DB {
		engine, err := bolt.Open(filepath.Join(s.folder, service+".db"), bolt.Options{NoSync: true})
		if err != nil {
			b.t.Fatal(err)
		}
		db, err := store.Open(ctx, engine, schema, store.Config{Now: time.Now})
		if err != nil {
			b.t.Fatal(err)
		}
		return db
	}
	db := open(schema)
	const many = 1000
	for from := 0; from < n; from += many {
		err := db.Update(ctx, func(tx *store.Tx) error {
			for i := from; i < min(n, from+many); i++ {
				if err := put(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := open(services[service].Schema).Close(); err != nil {
		b.t.Fatal(err)
	}
}

// stop ends the suite's process as a drain does.
func (s *suite) stop() {
	s.t.Helper()
	p := s.processes[names[0]]
	p.signal(syscall.SIGTERM)
	<-p.done
}

// again starts the suite's process again.
func (s *suite) again() {
	s.t.Helper()
	s.start(s.processes[names[0]])
	s.ready()
}

// listing starts a suite with n service requests, half of them at properties that the
// caller does not see, and returns a call for a page of those with a word in the title.
func (b *bench) listing(n int) func(context.Context) error {
	s := one(b.t)
	company := s.fill()
	s.stop()
	requests := store.NewCollection("service_request", (*servicerequestpb.ServiceRequest).GetId)
	newID := server.NewIDs(time.Now)
	start := time.Now().Add(-365 * 24 * time.Hour)
	b.fill(s, "servicerequest", company.Organization, n, store.NewSchema(requests), func(tx *store.Tx, i int) error {
		return requests.Put(tx, someRequest(company, newID(), i, start.Add(time.Duration(i)*time.Second)))
	})
	s.again()
	client := servicerequestpb.NewServiceRequestServiceClient(s)
	as := company.As(b.t.Context(), "PM")
	return func(context.Context) error {
		resp, err := client.ListServiceRequests(as, &servicerequestpb.ListServiceRequestsRequest{
			View: servicerequestpb.ServiceRequestView_SERVICE_REQUEST_VIEW_NEW, Filter: `title : "tap"`, PageSize: 50,
		})
		if err == nil && len(resp.GetServiceRequests()) != 50 {
			err = fmt.Errorf("got %d service requests, want 50", len(resp.GetServiceRequests()))
		}
		return err
	}
}

func someRequest(c *demo.Company, id string, i int, created time.Time) *servicerequestpb.ServiceRequest {
	titles := []string{"Kitchen tap drips", "Radiator stays cold"}
	v := &servicerequestpb.ServiceRequest{
		Id: id, PropertyId: servertest.UUID(i % 97), OwnerId: c.Person("OW").ID, AssigneeId: c.Person("SP").ID,
		CreateTime: timestamppb.New(created), RequestTime: timestamppb.New(created),
		State: servicerequestpb.ServiceRequestState_SERVICE_REQUEST_STATE_REQUESTED, Title: &titles[i/2%2],
		Description: new("Please ring at the neighbour's if nobody opens."),
	}
	if i%2 == 0 {
		v.PropertyId = c.Properties[i/4%len(c.Properties)].GetId()
	}
	return v
}

// lists measures a page of 50 out of n beside one out of 1,000.
func (b *bench) lists(n int) finding {
	many, few := b.listing(n), b.listing(1000)
	var all []time.Duration
	measure := func(call func(context.Context) error, keep bool) float64 {
		took := make([]time.Duration, 40)
		for i := range took {
			took[i] = b.took(call)
		}
		if keep {
			all = append(all, took...)
		}
		return float64(percentile(took, 50))
	}
	p50, ratio := beside(2*rounds, func() float64 { return measure(many, true) }, func() float64 { return measure(few, false) })
	return finding{
		fmt.Sprintf("p50 %s, p99 %s", milliseconds(time.Duration(p50)), milliseconds(percentile(all, 99))),
		ratio, "the same of 1,000 records (p50)",
	}
}

// starts measures the time from the start of the process to SERVING with n users.
func (b *bench) starts(n int) finding {
	full, empty := one(b.t), one(b.t)
	company := full.fill()
	full.stop()
	empty.stop()
	users := store.NewCollection("user", func(u *identitypb.User) string { return u.GetOrganizationId() + "/" + u.GetId() })
	profiles := store.NewCollection("profile", (*identitypb.Profile).GetId)
	credentials := store.NewCollection("credential", (*identitystorepb.Credential).GetUserId)
	newID := server.NewIDs(time.Now)
	b.fill(full, "identity", "directory", n, store.NewSchema(users, profiles, credentials), func(tx *store.Tx, i int) error {
		id, email, name := newID(), fmt.Sprintf("user%d@harbour-lane.example", i), fmt.Sprintf("User %d", i)
		err := users.Put(tx, &identitypb.User{
			Id: id, OrganizationId: company.Organization, Email: email, DisplayName: name, State: identitypb.UserState_USER_STATE_ACTIVE,
		})
		if err == nil {
			err = profiles.Put(tx, &identitypb.Profile{Id: id, Email: email, DisplayName: name})
		}
		if err == nil {
			err = credentials.Put(tx, &identitystorepb.Credential{UserId: id, PasswordHash: "none"})
		}
		return err
	})
	measure := func(s *suite) float64 {
		start := time.Now()
		s.again()
		took := time.Since(start)
		s.stop()
		return took.Seconds()
	}
	seconds, ratio := beside(7, func() float64 { return measure(full) }, func() float64 { return measure(empty) })
	return finding{fmt.Sprintf("%.2f s", seconds), ratio, "a start with an empty store"}
}
