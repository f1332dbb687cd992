package authz

import (
	"bytes"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"

	"latchkey.dev/services/internal/fault"
)

// Codec decodes like gRPC's own, but lets a malformed request through to the guard
// as an empty message with a mark on it. So a caller who may not call is told that
// first, and one who may is told INVALID_ARGUMENT and not INTERNAL.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(grpcproto.Name)} }

type codec struct{ encoding.CodecV2 }

// mark is an unknown field with a reserved number (19,000 is never used by a
// message), which holds no bytes.
var mark = []byte{0xc2, 0xa3, 0x09, 0x00}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	m, ok := v.(proto.Message)
	if !ok {
		return err
	}
	if err == nil {
		if bytes.Equal(m.ProtoReflect().GetUnknown(), mark) {
			m.ProtoReflect().SetUnknown(nil) // a caller sent the mark himself
		}
		return nil
	}
	proto.Reset(m)
	m.ProtoReflect().SetUnknown(mark)
	return nil
}

func malformed(m proto.Message) error {
	if !bytes.Equal(m.ProtoReflect().GetUnknown(), mark) {
		return nil
	}
	return fault.New(codes.InvalidArgument, faultpb.Reason_REASON_REQUEST_MALFORMED,
		fmt.Sprintf("the request is not a well-formed %s: check its encoding, and that all text is UTF-8", m.ProtoReflect().Descriptor().FullName()), nil)
}
