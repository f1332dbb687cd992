package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"peers/catalog"
)

var latchkey = []Engine{{
	Name: "latchkey", Binary: "latchkey",
	About: "the whole suite in one process, its store in files; each check signed in and authorized itself",
	Start: startLatchkey,
}}

// plainKeys are keys of our catalog that nothing but the layers decides about: none
// requires another or a feature of the plan, and an owner can hand out each.
var plainKeys = []string{
	"Appointments:Email", "Appointments:Finish:AddParts", "Appointments:Finish:SendCompletion", "Appointments:Grid:All",
	"Appointments:Grid:Backlog", "Appointments:Grid:InProgress", "Appointments:Grid:Last", "Appointments:Grid:Reworks",
	"Appointments:Grid:Upcoming", "Appointments:Notes:Private", "Contacts", "Invoices", "Pay:Account", "Pay:Reporting",
	"Organization:Parts", "Proposals", "Organization", "Calendar", "Call Center", "Dispatch", "Maps", "My Schedule:Appointments",
	"Reports", "ServiceAgents:TimeOff:Create", "Subcontractor:Review:Bids", "Taskboard:Content:Update", "Tasks",
	"View:OwnedBy:Others", "View:OwnedBy:Nobody", "ServiceRequests", "RecurringServiceRequests", "MakeReady", "Messages",
	"Insights", "VendorInvoices", "Properties", "Appointments:Create", "Appointments:Edit", "EndOfPeriod:Submit",
}

// shares is of how many of our users a user of the workload consists: each has the keys
// of one share.
var shares = (catalog.Keys + len(plainKeys) - 1) / len(plainKeys)

// shareOf returns which of a user's shares a key of the workload is in, and as which of
// our keys.
func shareOf(key int) (share int, name string) { return key % shares, plainKeys[key/shares] }

// within returns those keys of the workload that are in a share.
func within(share int, keys []int) (names []string) {
	for _, k := range keys {
		if s, name := shareOf(k); s == share {
			names = append(names, name)
		}
	}
	return names
}

func shareName(name string, share int) string { return fmt.Sprintf("%s-%d", name, share) }

const (
	latchkeyCode     = "setup-code-of-the-comparison"
	latchkeyEmail    = "owner@example.com"
	latchkeyPassword = "sturdy horse in a comparison"
	// joiners is how many users are made at once, importers how many files are imported.
	joiners, importers = 64, 2
)

func startLatchkey(ctx context.Context, env *Env, d *catalog.Data) (*Instance, error) {
	addr := FreeAddr()
	pid, err := env.Run(addr, filepath.Join(env.Bin, "latchkey"), "--listen="+addr, "--bootstrap-code="+latchkeyCode, "--log-level=warn")
	if err != nil {
		return nil, err
	}
	conn, err := Clients(env, addr, func(c grpc.ClientConnInterface) grpc.ClientConnInterface { return c })
	if err != nil {
		return nil, err
	}
	access, err := Clients(env, addr, permissionspb.NewAccessServiceClient)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	f := &filler{conn: conn(), data: d, users: make([][]string, catalog.Users), as: make([]context.Context, catalog.Orgs)}
	if err := f.fill(ctx); err != nil {
		return nil, err
	}
	load := time.Since(begin)
	return &Instance{PID: pid, Load: load, Check: func(user, key int) (bool, error) {
		share, name := shareOf(key)
		r, err := access().Check(f.as[d.Users[user].Org], &permissionspb.CheckRequest{UserId: &f.users[user][share], Grant: name})
		return r.GetAllowed(), err
	}}, nil
}

// filler fills the suite through its API.
type filler struct {
	conn  grpc.ClientConnInterface
	data  *catalog.Data
	users [][]string        // ids of our users, by user of the workload and share
	as    []context.Context // of calls in each organization, as its owner
}

// fill makes the organizations, their users, and in one import each all roles, groups and
// overrides.
func (f *filler) fill(ctx context.Context) error {
	var home context.Context
	err := WaitFor(ctx, func(ctx context.Context) error {
		_, err := identitypb.NewBootstrapServiceClient(f.conn).ClaimOwnership(ctx, &identitypb.ClaimOwnershipRequest{
			Code: latchkeyCode, BrandName: "Comparison", OrganizationName: "o0", TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
			OwnerEmail: latchkeyEmail, OwnerDisplayName: "Owner", OwnerPassword: latchkeyPassword,
		})
		return err
	})
	if err == nil {
		home, err = f.signIn(ctx, "")
	}
	if err != nil {
		return err
	}
	for org := range catalog.Orgs {
		made, err := identitypb.NewOrganizationServiceClient(f.conn).CreateOrganization(home, &identitypb.CreateOrganizationRequest{
			Name: fmt.Sprintf("o%d", org+1), TimeZone: "Europe/Berlin", CurrencyCode: "EUR",
		})
		if err != nil {
			return err
		}
		if f.as[org], err = f.signIn(ctx, made.GetOrganization().GetId()); err != nil {
			return err
		}
	}
	if err := atOnce(joiners, catalog.Users, f.addUser); err != nil {
		return err
	}
	return atOnce(importers, catalog.Orgs, f.importAccess)
}

// signIn returns the context of calls in an organization, or in the only one.
func (f *filler) signIn(ctx context.Context, organization string) (context.Context, error) {
	s, err := identitypb.NewSessionServiceClient(f.conn).CreateSession(ctx, &identitypb.CreateSessionRequest{
		Email: latchkeyEmail, Password: latchkeyPassword, Surface: identitypb.Surface_SURFACE_WEB, OrganizationId: organization,
	})
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.GetToken()), err
}

// addUser makes the shares of a user.
func (f *filler) addUser(user int) error {
	for share := range shares {
		name := shareName(catalog.UserName(user), share)
		u, err := identitypb.NewUserServiceClient(f.conn).CreateUser(f.as[f.data.Users[user].Org], &identitypb.CreateUserRequest{
			Email: name + "@example.com", DisplayName: name,
		})
		if err != nil {
			return err
		}
		f.users[user] = append(f.users[user], u.GetUser().GetId())
	}
	return nil
}

// importAccess imports the roles, groups and overrides of an organization.
func (f *filler) importAccess(org int) error {
	file := &permissionspb.AccessFile{}
	for share := range shares {
		for role, keys := range f.data.RoleKeys {
			file.Roles = append(file.Roles, &permissionspb.RoleEntry{Name: shareName(catalog.RoleName(role), share), Keys: within(share, keys)})
		}
		for i, g := range f.data.Groups {
			if g.Org == org {
				file.Groups = append(file.Groups, &permissionspb.GroupEntry{
					Name: shareName(catalog.GroupName(i), share), Role: shareName(catalog.RoleName(g.Role), share),
					Grants: within(share, g.Grants), Denies: within(share, g.Denies),
				})
			}
		}
		for i, u := range f.data.Users {
			if u.Org == org {
				file.Users = append(file.Users, f.userEntry(i, share))
			}
		}
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(file)
	if err != nil {
		return err
	}
	for { // others may import at the same moment
		err := f.send(f.as[org], data)
		if c := status.Code(err); c != codes.Unavailable && c != codes.Aborted {
			return err
		}
	}
}

func (f *filler) userEntry(user, share int) *permissionspb.UserEntry {
	u := f.data.Users[user]
	e := &permissionspb.UserEntry{User: f.users[user][share], Role: shareName(catalog.RoleName(u.Role), share)}
	if u.Group != catalog.NoGroup {
		e.Group = shareName(catalog.GroupName(u.Group), share)
	}
	for _, key := range within(share, u.Grants) {
		e.Grants = append(e.Grants, &permissionspb.OverrideEntry{Key: key})
	}
	for _, key := range within(share, u.Denies) {
		e.Denies = append(e.Denies, &permissionspb.OverrideEntry{Key: key})
	}
	return e
}

// send imports a file.
func (f *filler) send(ctx context.Context, data []byte) error {
	stream, err := permissionspb.NewAccessFileServiceClient(f.conn).ImportAccess(ctx)
	if err != nil {
		return err
	}
	for piece := range slices.Chunk(data, 1<<20) {
		if err := stream.Send(&permissionspb.ImportAccessRequest{Data: piece}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return errors.New("the import ended without a summary")
		case err != nil:
			return err
		case resp.GetSummary().GetApplied():
			return nil
		}
	}
}

// atOnce does something for each number below n, so many at once, until one fails.
func atOnce(many, n int, do func(int) error) error {
	var workers sync.WaitGroup
	next := make(chan int)
	failed := make(chan error, many)
	for range many {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; i++ {
		select {
		case next <- i:
		case err = <-failed:
		}
	}
	close(next)
	workers.Wait()
	select {
	case late := <-failed:
		return errors.Join(err, late)
	default:
		return err
	}
}
