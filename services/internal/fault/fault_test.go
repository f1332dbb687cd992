package fault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
)

// detail returns the detail of type T that a status carries, or fails the test.
func detail[T proto.Message](t *testing.T, st *status.Status) T {
	t.Helper()
	for _, d := range st.Details() {
		if found, ok := d.(T); ok {
			return found
		}
	}
	var none T
	t.Fatalf("%v carries no %T, but %v", st, none, st.Details())
	return none
}

func TestConstructors(t *testing.T) {
	for _, c := range []struct {
		name     string
		err      error
		code     codes.Code
		reason   string
		message  string
		metadata map[string]string
	}{
		{"invalid", fault.Invalid("part.name", "must have at most %d characters", 200), codes.InvalidArgument, "FIELD_INVALID",
			"part.name: must have at most 200 characters", nil},
		{"two invalid", fault.InvalidAll(fault.Violation{Field: "a", Expected: "must be set"}, fault.Violation{Field: "b", Expected: "must be 1"}),
			codes.InvalidArgument, "FIELD_INVALID", "a: must be set (and 1 more)", nil},
		{"not found", fault.NotFound("part", "7"), codes.NotFound, "RECORD_NOT_FOUND",
			`there is no part "7", or you may not see it`, map[string]string{"kind": "part", "id": "7"}},
		{"exists", fault.Exists("part", "sku"), codes.AlreadyExists, "RECORD_EXISTS",
			"another part has this sku already", map[string]string{"kind": "part", "field": "sku"}},
		{"stale", fault.Stale("part", "7", "3"), codes.Aborted, "ETAG_STALE",
			`part "7" changed since you read it: get it again and repeat with its etag`, map[string]string{"kind": "part", "id": "7", "etag": "3"}},
		{"race lost", fault.RaceLost("part", "7"), codes.Aborted, "RACE_LOST",
			`another caller was faster with part "7"`, map[string]string{"kind": "part", "id": "7"}},
		{"refused", fault.Refused("approve the %s first", "invoice"), codes.FailedPrecondition, "PRECONDITION_FAILED",
			"approve the invoice first", map[string]string{"need": "approve the invoice first"}},
		{"relation", fault.Relation("the assignee"), codes.PermissionDenied, "RELATION_MISSING",
			"only the assignee may do this", map[string]string{"relation": "the assignee"}},
		{"limit", fault.Limit("sign-ins", time.Minute), codes.ResourceExhausted, "LIMIT_REACHED",
			"too much at once: sign-ins", map[string]string{"limit": "sign-ins"}},
		{"unreachable", fault.Unreachable("identity"), codes.Unavailable, "SERVICE_UNREACHABLE",
			"the identity service cannot be reached: try again", map[string]string{"service": "identity"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := status.Convert(c.err)
			if st.Code() != c.code || st.Message() != c.message || c.err.Error() != c.message {
				t.Errorf("got %v %q, want %v %q", st.Code(), st.Message(), c.code, c.message)
			}
			info := detail[*errdetails.ErrorInfo](t, st)
			if info.GetReason() != c.reason || info.GetDomain() != fault.Domain || !maps.Equal(info.GetMetadata(), c.metadata) {
				t.Errorf("got %v, want reason %s, domain %s, metadata %v", info, c.reason, fault.Domain, c.metadata)
			}
		})
	}
}

func TestInvalidListsEachField(t *testing.T) {
	err := fault.InvalidAll(fault.Violation{Field: "a", Expected: "must be set"}, fault.Violation{Field: "b[2]", Expected: "must be 1"})
	got := detail[*errdetails.BadRequest](t, status.Convert(err))
	want := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "a", Description: "must be set", Reason: "FIELD_INVALID"},
		{Field: "b[2]", Description: "must be 1", Reason: "FIELD_INVALID"},
	}}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRetryDelayIsTold(t *testing.T) {
	got := detail[*errdetails.RetryInfo](t, status.Convert(fault.Limit("sign-ins", 90*time.Second)))
	if got.GetRetryDelay().AsDuration() != 90*time.Second {
		t.Errorf("got %v, want 90s", got)
	}
	for _, d := range status.Convert(fault.NotFound("part", "7")).Details() {
		if _, ok := d.(*errdetails.RetryInfo); ok {
			t.Errorf("an error without a time to wait carries %v", d)
		}
	}
}

// Text of a caller that is no UTF-8 must not cost the error its details: protobuf
// refuses to encode it.
func TestTextThatIsNotUTF8(t *testing.T) {
	const bad = "x\xff\xfey"
	for name, err := range map[string]error{
		"metadata":  fault.NotFound("part", bad),
		"violation": fault.Invalid(bad, "must be set, not %s", bad),
		"message":   fault.New(codes.Aborted, faultpb.Reason_REASON_RACE_LOST, bad, nil),
	} {
		t.Run(name, func(t *testing.T) {
			st := status.Convert(err)
			detail[*errdetails.ErrorInfo](t, st)
			if !utf8.ValidString(st.Message()) {
				t.Errorf("message %q is not UTF-8", st.Message())
			}
			if _, err := proto.Marshal(st.Proto()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReasonName(t *testing.T) {
	if got := fault.ReasonName(faultpb.Reason_REASON_GRANT_MISSING); got != "GRANT_MISSING" {
		t.Errorf("got %q, want GRANT_MISSING", got)
	}
	if got := fault.ReasonName(faultpb.Reason(7777)); got != "7777" {
		t.Errorf("of a later version: got %q, want 7777", got)
	}
}

func TestSeal(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	secret := errors.New("open /var/lib/secret: no space")
	for _, c := range []struct {
		name   string
		ctx    context.Context
		err    error
		code   codes.Code
		reason string
		broken bool
	}{
		{"a fault", t.Context(), fault.NotFound("part", "7"), codes.NotFound, "RECORD_NOT_FOUND", false},
		{"a fault with words around it", t.Context(), fmt.Errorf("at /secret: %w", fault.NotFound("part", "7")), codes.NotFound, "RECORD_NOT_FOUND", false},
		{"any error", t.Context(), secret, codes.Internal, "INTERNAL", true},
		{"the status of another service", t.Context(), status.Error(codes.NotFound, "secret"), codes.Internal, "INTERNAL", true},
		{"cancelled", ended, fmt.Errorf("secret: %w", context.Canceled), codes.Canceled, "CALL_CANCELLED", false},
		{"cancelled, as a status", ended, status.Error(codes.Canceled, "secret"), codes.Canceled, "CALL_CANCELLED", false},
		{"caller went away", ended, status.Error(codes.Unavailable, "transport is closing"), codes.Canceled, "CALL_CANCELLED", false},
		{"another call was cancelled", t.Context(), context.Canceled, codes.Internal, "INTERNAL", true},
		{"late", late, fmt.Errorf("secret: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "DEADLINE_PASSED", false},
		{"cancelled below because it was late", late, status.Error(codes.Canceled, "secret"), codes.DeadlineExceeded, "DEADLINE_PASSED", false},
		{"another call was late", t.Context(), context.DeadlineExceeded, codes.Internal, "INTERNAL", true},
		{"broken while late", late, secret, codes.Internal, "INTERNAL", true},
		{"a fault while late", late, fault.NotFound("part", "7"), codes.NotFound, "RECORD_NOT_FOUND", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sealed, broken := fault.Seal(c.ctx, c.err, "id-1")
			st := status.Convert(sealed)
			if reason := detail[*errdetails.ErrorInfo](t, st).GetReason(); st.Code() != c.code || reason != c.reason {
				t.Errorf("got %v %s, want %v %s", st.Code(), reason, c.code, c.reason)
			}
			if c.broken != (broken == c.err) || !c.broken && broken != nil {
				t.Errorf("to log: got %v, want it to be logged: %t", broken, c.broken)
			}
			if text := fmt.Sprint(st.Proto()); strings.Contains(text, "secret") {
				t.Errorf("the caller is told %s", text)
			}
		})
	}
	if sealed, broken := fault.Seal(t.Context(), nil, ""); sealed != nil || broken != nil {
		t.Errorf("no error: got %v, %v", sealed, broken)
	}
}

func TestSealNamesTheRequest(t *testing.T) {
	sealed, _ := fault.Seal(t.Context(), errors.New("secret"), "id-1")
	if got := detail[*errdetails.ErrorInfo](t, status.Convert(sealed)).GetMetadata()["request_id"]; got != "id-1" {
		t.Errorf("request_id: got %q, want id-1", got)
	}
}
