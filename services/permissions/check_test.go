package permissions_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/servertest"
)

func TestABatchAnswersAsChecksDo(t *testing.T) {
	owner := start(t)
	uma, sam := owner.add("uma", "US"), owner.add("sam", "SA")
	mustNot(t, owner.override(uma, "Invoices:Void", pb.Effect_EFFECT_GRANT))
	req := &pb.BatchCheckRequest{UserId: &uma}
	for _, grant := range []string{"Invoices:Void", "Campaigns:Create", "setting:see_pricing", "feature:routing", "App"} {
		req.Evaluations = append(req.Evaluations, &pb.Evaluation{Grant: grant}, &pb.Evaluation{UserId: &sam, Grant: grant})
	}
	resp, err := owner.access().BatchCheck(owner.ctx(), req)
	mustNot(t, err)
	for i, e := range req.GetEvaluations() {
		user := uma
		if e.UserId != nil {
			user = *e.UserId
		}
		want, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{UserId: &user, Grant: e.GetGrant(), MinRevision: resp.GetRevision()})
		mustNot(t, err)
		got := resp.GetEvaluations()[i]
		same(t, e.GetGrant(), &pb.CheckResponse{
			Allowed: got.GetAllowed(), Revision: resp.GetRevision(), Layer: got.GetLayer(), Source: got.GetSource(),
			Missing: got.GetMissing(), ExpireTime: got.GetExpireTime(),
		}, want)
	}
	if !resp.GetEvaluations()[0].GetAllowed() || resp.GetEvaluations()[1].GetAllowed() {
		t.Errorf("got %v", resp)
	}
}

func TestTheSemanticOfABatchEndsIt(t *testing.T) {
	owner := start(t)
	sam := owner.add("sam", "SA")
	req := &pb.BatchCheckRequest{UserId: &sam, Evaluations: []*pb.Evaluation{
		{Grant: "App"}, {Grant: "Invoices:Void"}, {Grant: "App"},
	}}
	for semantic, want := range map[pb.EvaluationsSemantic]int{
		pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_UNSPECIFIED:            3,
		pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_EXECUTE_ALL:            3,
		pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_DENY_ON_FIRST_DENY:     2,
		pb.EvaluationsSemantic_EVALUATIONS_SEMANTIC_PERMIT_ON_FIRST_PERMIT: 1,
	} {
		req.EvaluationsSemantic = semantic
		resp, err := owner.access().BatchCheck(owner.ctx(), req)
		mustNot(t, err)
		if got := len(resp.GetEvaluations()); got != want {
			t.Errorf("%v: got %d answers, want %d", semantic, got, want)
		}
	}
}

func TestABatchRefusesWhatIsNoQuestion(t *testing.T) {
	owner := start(t)
	sam := owner.hire("sam", "SW")
	ask := func(p *person, req *pb.BatchCheckRequest) error {
		_, err := p.access().BatchCheck(p.ctx(), req)
		return err
	}
	mustNot(t, ask(sam, &pb.BatchCheckRequest{Evaluations: []*pb.Evaluation{{Grant: "App"}}}))
	err := ask(sam, &pb.BatchCheckRequest{Evaluations: []*pb.Evaluation{{Grant: "App", UserId: &owner.id}}})
	check(t, "about somebody else", err, codes.PermissionDenied, "GRANT_MISSING", "grant", "Organization: Users")
	err = ask(owner, &pb.BatchCheckRequest{Evaluations: []*pb.Evaluation{{Grant: "invoices:void"}}})
	check(t, "nearly a grant", err, codes.InvalidArgument, "FIELD_INVALID")
	stranger := servertest.UUID(99)
	err = ask(owner, &pb.BatchCheckRequest{Evaluations: []*pb.Evaluation{{Grant: "App"}, {Grant: "App", UserId: &stranger}}})
	check(t, "a stranger", err, codes.NotFound, "RECORD_NOT_FOUND", "id", stranger)
	err = ask(owner, &pb.BatchCheckRequest{})
	check(t, "nothing", err, codes.InvalidArgument, "FIELD_INVALID")
}

func TestARevisionThatIsNotReachedIsRefused(t *testing.T) {
	owner := start(t)
	now := owner.holds("App").GetRevision()
	_, err := owner.access().Check(owner.ctx(), &pb.CheckRequest{Grant: "App", MinRevision: now})
	mustNot(t, err)
	_, err = owner.access().Check(owner.ctx(), &pb.CheckRequest{Grant: "App", MinRevision: 1 << 40})
	check(t, "check", err, codes.FailedPrecondition, "REVISION_AHEAD", "min_revision", "1099511627776")
	_, err = owner.access().BatchCheck(owner.ctx(), &pb.BatchCheckRequest{
		Evaluations: []*pb.Evaluation{{Grant: "App"}}, MinRevision: 1 << 40,
	})
	check(t, "batch", err, codes.FailedPrecondition, "REVISION_AHEAD", "min_revision", "1099511627776")
}

func TestAccessAsOfAPastTime(t *testing.T) {
	owner := start(t)
	uma := owner.hire("uma", "US")
	before := owner.clock.now()
	owner.clock.forward(1e9)
	mustNot(t, owner.override(uma.id, "Invoices:Void", pb.Effect_EFFECT_GRANT))
	ask := func(req *pb.GetEffectiveAccessRequest) (*pb.GetEffectiveAccessResponse, error) {
		req.UserId = &uma.id
		return owner.access().GetEffectiveAccess(owner.ctx(), req)
	}
	void := func(r *pb.GetEffectiveAccessResponse) bool {
		for _, k := range r.GetKeys() {
			if k.GetKey() == "Invoices:Void" {
				return k.GetAllowed()
			}
		}
		return false
	}
	now, err := ask(&pb.GetEffectiveAccessRequest{})
	mustNot(t, err)
	then, err := ask(&pb.GetEffectiveAccessRequest{AsOfTime: timestamppb.New(before)})
	mustNot(t, err)
	if !void(now) || void(then) || then.GetRoleId() != "US" || then.GetRevision() >= now.GetRevision() {
		t.Errorf("now %v of revision %d, then %v of %d", void(now), now.GetRevision(), void(then), then.GetRevision())
	}
	_, err = ask(&pb.GetEffectiveAccessRequest{AsOfTime: timestamppb.New(owner.clock.now().Add(1e12))})
	check(t, "the future", err, codes.InvalidArgument, "FIELD_INVALID")
}
