package fault

import (
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
)

// Relay returns the error of another service of the suite as one to tell the caller, if it
// is for one of these reasons, and else nil.
func Relay(err error, reasons ...faultpb.Reason) error {
	st := status.Convert(err)
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != Domain {
			continue
		}
		i := slices.IndexFunc(reasons, func(r faultpb.Reason) bool { return ReasonName(r) == info.GetReason() })
		if i >= 0 {
			return New(st.Code(), reasons[i], st.Message(), info.GetMetadata())
		}
	}
	return nil
}
