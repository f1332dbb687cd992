package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	permissionspb "latchkey.dev/gen/go/latchkey/permissions/v1"
)

// Files in a script. A request has the lines of one in place of its bytes, as a list under
// "data", and so has an answer. $sent is the file that was sent last, and a name that was
// given with "as" to an answer with a file is that file: among the lines of another it stands
// for all of its lines, and in an answer for the whole.

// withFile returns a request with the bytes of its file in place of the lines.
func (tl *teller) withFile(where, request string) string {
	var fields map[string]json.RawMessage
	var lines []string
	if json.Unmarshal([]byte(request), &fields) != nil || json.Unmarshal(fields["data"], &lines) != nil {
		return request
	}
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(tl.expand(where, line), "\n")
	}
	tl.vars["sent"] = strings.Join(lines, "\n") + "\n"
	fields["data"], _ = json.Marshal(base64.StdEncoding.EncodeToString([]byte(tl.vars["sent"])))
	whole, err := json.Marshal(fields)
	if err != nil {
		tl.t.Fatalf("%s: the request: %v", where, err)
	}
	return string(whole)
}

// plainFile returns the lines of a file in an answer, or the name of one that it equals.
func (tl *teller) plainFile(encoded string) any {
	text, ok := fileIn(encoded)
	if !ok {
		return encoded
	}
	for name, v := range tl.vars {
		if v == text && name != "sent" {
			return "$" + name
		}
	}
	if text == tl.vars["sent"] {
		return "$sent"
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func fileIn(encoded string) (text string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(encoded)
	return string(b), err == nil && len(b) > 0 && utf8.Valid(b)
}

// callAccessFile calls a method of the AccessFileService with a whole file and returns all that it
// answers as one response; ok is false if it is none.
func callAccessFile(ctx context.Context, conn grpc.ClientConnInterface, req proto.Message) (resp proto.Message, ok bool, err error) {
	files := permissionspb.NewAccessFileServiceClient(conn)
	switch req := req.(type) {
	case *permissionspb.ExportAccessRequest:
		stream, err := files.ExportAccess(ctx, req)
		if err != nil {
			return nil, true, err
		}
		whole := &permissionspb.ExportAccessResponse{}
		err = receiveAll(stream, func(piece *permissionspb.ExportAccessResponse) {
			piece.Data = slices.Concat(whole.GetData(), piece.GetData())
			whole = piece
		})
		return whole, true, err
	case *permissionspb.ImportAccessRequest:
		stream, err := files.ImportAccess(ctx)
		if err != nil {
			return nil, true, err
		}
		if err := stream.Send(req); err == nil {
			stream.CloseSend()
		} // else what is wrong is received
		whole := &permissionspb.ImportAccessResponse{}
		err = receiveAll(stream, func(part *permissionspb.ImportAccessResponse) {
			part.Progress = nil
			proto.Merge(whole, part)
		})
		return whole, true, err
	}
	return nil, false, nil
}

// receiveAll calls f for every response of a stream.
func receiveAll[R any](stream interface{ Recv() (R, error) }, f func(R)) error {
	for {
		resp, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		f(resp)
	}
}
