package fault

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
)

// Seal turns whatever a handler returned into what its caller may see. It returns
// the status error to send, and as broken the error to log if the suite is at
// fault, else nil.
func Seal(ctx context.Context, err error, requestID string) (sealed, broken error) {
	if err == nil {
		return nil, nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.GRPCStatus().Err(), nil
	}
	if e := ended(ctx, err); e != nil {
		return e.GRPCStatus().Err(), nil
	}
	internal := &Error{
		Code: codes.Internal, Reason: faultpb.Reason_REASON_INTERNAL,
		Message:  "the suite is at fault; its log has more under request id " + requestID,
		Metadata: map[string]string{"request_id": requestID},
	}
	return internal.GRPCStatus().Err(), err
}

// ended returns the error for err if it is only the end of the call's own context.
// The end of another call's context is not: then the suite is at fault.
func ended(ctx context.Context, err error) *Error {
	switch {
	case ctx.Err() == nil || !tellsOfEnd(err):
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{
			Code: codes.DeadlineExceeded, Reason: faultpb.Reason_REASON_DEADLINE_PASSED,
			Message: "the call's deadline passed; whether it took effect is unknown: repeat it with the same request_id",
		}
	}
	return Cancelled()
}

// tellsOfEnd reports whether err is what comes of an ended context.
func tellsOfEnd(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded:
		return true
	case codes.Unavailable: // the caller closed the connection while a stream was sent
		return true
	}
	return false
}
