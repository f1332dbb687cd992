package permissions

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// maxPlans is how often an import is planned: anew whenever somebody else changed access
// in the organization meanwhile.
const maxPlans = 5

type importStream = grpc.BidiStreamingServer[pb.ImportAccessRequest, pb.ImportAccessResponse]

// ImportAccess makes the organization's access what a file says.
//
// It plans the change in reads that are short each, so that nobody waits for them, and
// makes it in one transaction that only writes, if the plan is of the revision before.
func (s *service) ImportAccess(stream importStream) error {
	req, err := receiveFile(stream)
	if err != nil {
		return err
	}
	im := &importing{
		service: s, ctx: stream.Context(), by: granterOf(stream.Context()),
		replace: req.GetMode() == pb.ImportMode_IMPORT_MODE_REPLACE, reason: req.GetReason(), links: map[string]link{},
		tell: func(stage pb.ImportStage, done, total int) error {
			return stream.Send(&pb.ImportAccessResponse{Progress: &pb.ImportProgress{Stage: stage, Done: int64(done), Total: int64(total)}})
		},
	}
	if im.file, err = readFile(req.GetData(), s.validator); err != nil {
		return err
	}
	resp, err := im.make(req)
	if err != nil {
		return err
	}
	if p := im.plan; p != nil { // else it is the answer to a repeat
		for part := range p.parts() {
			if err := stream.Send(part); err != nil {
				return err
			}
		}
	}
	return stream.Send(resp)
}

// receiveFile returns the first request of a stream with the data of all. Each is
// answered with how much has come.
func receiveFile(stream importStream) (*pb.ImportAccessRequest, error) {
	var whole *pb.ImportAccessRequest
	for {
		next, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && whole != nil:
			return whole, nil
		case errors.Is(err, io.EOF):
			return nil, fault.Invalid("data", "must be sent")
		case err != nil:
			return nil, err
		case whole == nil:
			whole = proto.CloneOf(next)
		case !proto.Equal(next, &pb.ImportAccessRequest{Data: next.GetData()}):
			return nil, fault.Invalid("data", "must come alone after the first request")
		case len(whole.GetData())+len(next.GetData()) > maxFile:
			return nil, fault.Invalid("data", "must be at most %d MiB in all", maxFile>>20)
		default:
			whole.Data = append(whole.Data, next.GetData()...)
		}
		if err := stream.Send(&pb.ImportAccessResponse{Progress: &pb.ImportProgress{
			Stage: pb.ImportStage_IMPORT_STAGE_RECEIVE, Done: int64(len(whole.GetData())),
		}}); err != nil {
			return nil, err
		}
	}
}

// errUnplanned is what the transaction of an import returns that has no plan, or one of
// another revision.
var errUnplanned = fault.RaceLost("access of the organization", "all")

// make plans the change and makes it. A repeat gets the first answer without a plan.
func (im *importing) make(req *pb.ImportAccessRequest) (*pb.ImportAccessResponse, error) {
	organization := store.OriginOf(im.ctx).Tenant
	for n := 0; ; n++ {
		resp, err := im.attempt(req)
		if !errors.Is(err, errUnplanned) {
			return resp, err
		}
		if n == maxPlans {
			return nil, fault.RaceLost("access of the organization", organization)
		}
		if err := im.newPlan(); err != nil && !errors.Is(err, errUnplanned) {
			return nil, err
		}
		if etag := req.GetEtag(); im.plan != nil && etag != "" && etag != im.plan.etag {
			return nil, fault.Stale("difference", organization, im.plan.etag)
		}
	}
}

// attempt makes the change that is planned, if it can.
func (im *importing) attempt(req *pb.ImportAccessRequest) (*pb.ImportAccessResponse, error) {
	if req.GetValidateOnly() {
		if im.plan == nil {
			return nil, errUnplanned
		}
		return &pb.ImportAccessResponse{Summary: im.plan.summary(false)}, nil
	}
	if im.plan != nil {
		if err := im.tell(pb.ImportStage_IMPORT_STAGE_APPLY, 0, len(im.plan.users)); err != nil {
			return nil, err
		}
	}
	return change(im.ctx, im.service, organizationTag(im.ctx), req, func(tx *store.Tx) (*pb.ImportAccessResponse, error) {
		if !im.plan.holds(tx) {
			return nil, errUnplanned
		}
		if err := im.plan.write(tx); err != nil {
			return nil, err
		}
		return &pb.ImportAccessResponse{Summary: im.plan.summary(true)}, nil
	})
}

// view runs f with a loader at the instant of the plan, if access is still what it was
// when the plan was begun.
func (im *importing) view(f func(*loader) error) error {
	return im.db.View(im.ctx, func(tx *store.Tx) error {
		if tx.Revision() != im.revision {
			return errUnplanned
		}
		l := newLoader(tx)
		l.now = im.at
		if err := f(l); err != nil {
			return err
		}
		return tx.Failed()
	})
}

// importing is an import that goes on.
type importing struct {
	*service
	ctx     context.Context
	by      granter
	file    *accessFile
	replace bool
	reason  string
	links   map[string]link // what scheduling said
	tell    func(stage pb.ImportStage, done, total int) error
	*draftPlan
	plan *importPlan // nil until there is one
}
