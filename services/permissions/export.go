package permissions

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

// ExportAccess writes the organization's access into a file.
func (s *service) ExportAccess(_ *pb.ExportAccessRequest, stream grpc.ServerStreamingServer[pb.ExportAccessResponse]) error {
	e := &export{service: s, ctx: stream.Context()}
	shared, err := e.begin()
	if err != nil {
		return err
	}
	data, err := writeEntries(shared, false)
	if err != nil {
		return err
	}
	if err := stream.Send(e.piece(data)); err != nil {
		return err
	}
	for e.done < len(e.ids) {
		if data, err = e.some(); err != nil {
			return err
		}
		if err := stream.Send(e.piece(data)); err != nil {
			return err
		}
	}
	return nil
}

// export is an export that goes on. Each of its transactions sees the records of the one
// revision.
type export struct {
	*service
	ctx      context.Context
	revision int64
	at       time.Time
	names    *naming
	ids      []string // of the members, by address
	done     int
	goesOn   bool // users were written
}

func (e *export) piece(data []byte) *pb.ExportAccessResponse {
	return &pb.ExportAccessResponse{
		Data: data, Revision: e.revision, UsersDone: int32(e.done), UsersTotal: int32(len(e.ids)),
	}
}

// view runs f with a loader of the export's revision.
func (e *export) view(f func(*loader) error) error {
	return e.db.View(e.ctx, func(tx *store.Tx) error {
		if err := f(loaderAt(tx, e.revision, e.at)); err != nil {
			return err
		}
		return tx.Failed()
	})
}

// begin returns the roles and groups, and learns who is to follow.
func (e *export) begin() (*pb.AccessFile, error) {
	var ownRoles []*pb.Role
	var ownGroups []*pb.Group
	err := e.db.View(e.ctx, func(tx *store.Tx) (err error) {
		l := newLoader(tx)
		e.revision, e.at = tx.Revision(), l.now
		for r := range roleByName.Scan(tx, roleByName.Range(false)) {
			if r.GetBrandId() == "" {
				ownRoles = append(ownRoles, r)
			}
		}
		ownGroups = slices.Collect(groupByName.Scan(tx, groupByName.Range(false)))
		e.names, err = newNaming(l)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := e.members(); err != nil {
		return nil, err
	}
	var approvers []string
	for _, r := range ownRoles {
		approvers = append(approvers, r.GetSettings().GetInvoiceApprover())
	}
	for _, g := range ownGroups {
		approvers = append(approvers, g.GetSettings().GetInvoiceApprover())
	}
	if err := e.names.learn(e.ctx, e.service, approvers); err != nil {
		return nil, err
	}
	f := &pb.AccessFile{}
	for _, r := range ownRoles {
		f.Roles = append(f.Roles, e.names.roleEntry(r))
	}
	for _, g := range ownGroups {
		f.Groups = append(f.Groups, e.names.groupEntry(g))
	}
	return f, nil
}

// idChunk is how many ids one transaction reads.
const idChunk = 5000

// members notes the members of whom something is or was stored.
func (e *export) members() error {
	for more, last := true, ""; more; {
		more = false
		err := e.view(func(l *loader) error {
			n := 0
			for id := range accesses.IDs(l.tx, last) {
				if n++; n > idChunk {
					more = true
					break
				}
				last = id
				e.ids = append(e.ids, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := e.names.learn(e.ctx, e.service, e.ids); err != nil {
		return err
	}
	e.ids = slices.DeleteFunc(e.ids, func(id string) bool { return e.names.users[id] == "" })
	slices.SortFunc(e.ids, func(a, b string) int { return strings.Compare(e.names.users[a], e.names.users[b]) })
	return nil
}

// some writes the next users.
func (e *export) some() ([]byte, error) {
	ids := e.ids[e.done:min(e.done+reviewChunk, len(e.ids))]
	var found []*pb.UserAccess
	var approvers []string
	err := e.view(func(l *loader) error {
		for _, id := range ids {
			u, ok := find(l, accesses, id)
			if !ok || l.holdsNothing(u) {
				continue
			}
			found = append(found, u)
			approvers = append(approvers, u.GetSettings().GetInvoiceApprover())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := e.names.learn(e.ctx, e.service, approvers); err != nil {
		return nil, err
	}
	piece := &pb.AccessFile{}
	at := &loader{now: e.at}
	for _, u := range found {
		piece.Users = append(piece.Users, e.names.userEntry(at, u))
	}
	data, err := writeEntries(piece, e.goesOn)
	e.done += len(ids)
	e.goesOn = e.goesOn || len(found) > 0
	return data, err
}
