package fault

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
)

// Domain is the domain of every ErrorInfo that the suite sends.
const Domain = "latchkey.dev"

// Error is an error that the caller may see.
type Error struct {
	Code       codes.Code
	Reason     faultpb.Reason
	Message    string
	Brief      string // the message where the method is plain from the context; empty: as Message
	Metadata   map[string]string
	Violations []Violation   // for FIELD_INVALID: each field that is wrong
	RetryAfter time.Duration // 0 if the suite does not know
}

// Violation is one field of a request and what was expected of it.
type Violation struct {
	Field    string // path from the request, "invoice.lines[2].quantity"
	Expected string // "must be greater than 0"
}

// Error returns the message, which is for the caller.
func (e *Error) Error() string { return e.Message }

// InBrief returns what an available action says of the error.
func (e *Error) InBrief() string {
	if e.Brief != "" {
		return e.Brief
	}
	return e.Message
}

// ReasonName returns the reason as it stands on the wire, "GRANT_MISSING".
func (e *Error) ReasonName() string { return ReasonName(e.Reason) }

// ReasonName returns a reason as it stands on the wire, "GRANT_MISSING".
func ReasonName(r faultpb.Reason) string { return strings.TrimPrefix(r.String(), "REASON_") }

// GRPCStatus makes the error a status with its details, as grpc-go wants it.
func (e *Error) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: e.ReasonName(), Domain: Domain, Metadata: e.metadata(),
	}}
	if len(e.Violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range e.Violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: encodable(v.Field), Description: encodable(v.Expected), Reason: e.ReasonName(),
			})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st := status.New(e.Code, encodable(e.Message))
	if full, err := st.WithDetails(details...); err == nil {
		return full
	}
	return st
}

func (e *Error) metadata() map[string]string {
	m := make(map[string]string, len(e.Metadata))
	for name, value := range e.Metadata {
		m[name] = encodable(value)
	}
	return m
}

// encodable returns the text with a mark in place of what is not UTF-8. An error
// may quote what a caller sent, and one such byte would cost it all its details.
func encodable(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// New returns an error of any reason; the constructors below are for the usual ones.
func New(code codes.Code, reason faultpb.Reason, message string, metadata map[string]string) error {
	return &Error{Code: code, Reason: reason, Message: message, Metadata: metadata}
}

// Invalid says that a field of the request is wrong, and what was expected.
func Invalid(field, expected string, args ...any) error {
	return InvalidAll(Violation{field, fmt.Sprintf(expected, args...)})
}

// InvalidAll says of several fields what was expected. There must be at least one.
func InvalidAll(violations ...Violation) error {
	first := violations[0]
	message := first.Field + ": " + first.Expected
	if more := len(violations) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	return &Error{
		Code: codes.InvalidArgument, Reason: faultpb.Reason_REASON_FIELD_INVALID,
		Message: message, Violations: violations,
	}
}

// NotFound says that there is no such record, or none that the caller may see:
// the two must not be told apart.
func NotFound(kind, id string) error {
	return New(codes.NotFound, faultpb.Reason_REASON_RECORD_NOT_FOUND,
		fmt.Sprintf("there is no %s %q, or you may not see it", kind, id),
		map[string]string{"kind": kind, "id": id})
}

// Exists says that another record holds a value that must be unique.
func Exists(kind, field string) error {
	return New(codes.AlreadyExists, faultpb.Reason_REASON_RECORD_EXISTS,
		fmt.Sprintf("another %s has this %s already", kind, field),
		map[string]string{"kind": kind, "field": field})
}

// Stale says that the record changed since the caller read it.
func Stale(kind, id, etag string) error {
	return New(codes.Aborted, faultpb.Reason_REASON_ETAG_STALE,
		fmt.Sprintf("%s %q changed since you read it: get it again and repeat with its etag", kind, id),
		map[string]string{"kind": kind, "id": id, "etag": etag})
}

// RaceLost says that another caller was faster.
func RaceLost(kind, id string) error {
	return New(codes.Aborted, faultpb.Reason_REASON_RACE_LOST,
		fmt.Sprintf("another caller was faster with %s %q", kind, id),
		map[string]string{"kind": kind, "id": id})
}

// Refused says that something else must be done first; need says what.
func Refused(need string, args ...any) error {
	need = fmt.Sprintf(need, args...)
	return New(codes.FailedPrecondition, faultpb.Reason_REASON_PRECONDITION_FAILED, need,
		map[string]string{"need": need})
}

// Relation says that the caller stands in the wrong relation to a record that he
// may see; need says which one it takes, "the assignee".
func Relation(need string) error {
	return New(codes.PermissionDenied, faultpb.Reason_REASON_RELATION_MISSING,
		"only "+need+" may do this", map[string]string{"relation": need})
}

// Limit says that a bound was reached and when to try again.
func Limit(limit string, retryAfter time.Duration) error {
	return &Error{
		Code: codes.ResourceExhausted, Reason: faultpb.Reason_REASON_LIMIT_REACHED,
		Message: "too much at once: " + limit, Metadata: map[string]string{"limit": limit}, RetryAfter: retryAfter,
	}
}

// Unreachable says that a service of the suite did not answer.
func Unreachable(service string) error {
	return &Error{
		Code: codes.Unavailable, Reason: faultpb.Reason_REASON_SERVICE_UNREACHABLE,
		Message:  "the " + service + " service cannot be reached: try again",
		Metadata: map[string]string{"service": service}, RetryAfter: time.Second,
	}
}

// Cancelled says that the caller has cancelled the call, or has gone.
func Cancelled() *Error {
	return &Error{
		Code: codes.Canceled, Reason: faultpb.Reason_REASON_CALL_CANCELLED,
		Message: "the caller cancelled the call",
	}
}
