package permissions

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/fault"
)

const (
	// maxFile bounds a file with access.
	maxFile = 64 << 20
	// maxViolations is how much that is wrong with a file is told at once.
	maxViolations = 100
)

// accessFile is a file that somebody wants to import, with what is wrong with it.
type accessFile struct {
	*pb.AccessFile
	data  []byte
	root  *yaml.Node // once a line was asked for
	wrong []fault.Violation
}

// readFile reads a file. What it returns has the form and the bounds that the .proto
// file declares.
func readFile(data []byte, v protovalidate.Validator) (*accessFile, error) {
	if !utf8.Valid(data) {
		return nil, fault.Invalid("data", "must be a file in UTF-8")
	}
	f := &accessFile{AccessFile: &pb.AccessFile{}, data: data}
	if err := protoyaml.Unmarshal(data, f.AccessFile); err != nil {
		for _, e := range parts(err) {
			if len(f.wrong) < maxViolations {
				f.wrong = append(f.wrong, fault.Violation{Field: "data", Expected: inOneLine(e)})
			}
		}
		return nil, fault.InvalidAll(f.wrong...)
	}
	err := v.Validate(f.AccessFile)
	if bad, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		for _, b := range bad.Violations {
			f.reject(protovalidate.FieldPathString(b.Proto.GetField()), "%s", b.Proto.GetMessage())
		}
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("validate file: %w", err)
	}
	return f, f.failed()
}

// parts returns the errors that an error joins.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// inOneLine returns what is wrong with the form of a file: of a message as
// ":3:5 unknown field" the first line, with words for the place.
func inOneLine(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n")
	var line, column int
	if n, _ := fmt.Sscanf(text, ":%d:%d ", &line, &column); n == 2 {
		_, text, _ = strings.Cut(text, " ")
		return fmt.Sprintf("line %d, column %d: %s", line, column, text)
	}
	return text
}

// reject notes that a field of the file is wrong.
func (f *accessFile) reject(field, expected string, args ...any) {
	if len(f.wrong) < maxViolations {
		f.wrong = append(f.wrong, fault.Violation{
			Field: field, Expected: fmt.Sprintf("line %d: ", f.line(field)) + fmt.Sprintf(expected, args...),
		})
	}
}

// failed returns an error with all that is wrong, or nil.
func (f *accessFile) failed() error {
	if len(f.wrong) == 0 {
		return nil
	}
	return fault.InvalidAll(f.wrong...)
}

// blame returns an error that names the entry of the file which asked for what went
// wrong.
func (f *accessFile) blame(err error, field string) error {
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err
	}
	blamed := *e
	blamed.Message = fmt.Sprintf("%s, line %d: %s", field, f.line(field), e.Message)
	blamed.Metadata = maps.Clone(e.Metadata)
	if blamed.Metadata == nil {
		blamed.Metadata = map[string]string{}
	}
	blamed.Metadata["field"] = field
	return &blamed
}

// line returns the line of a field as "users[3].grants[0].key", of the innermost part of
// it that the file has.
func (f *accessFile) line(field string) int {
	if f.root == nil {
		f.root = &yaml.Node{}
		if yaml.Unmarshal(f.data, f.root) != nil || len(f.root.Content) == 0 {
			return 1
		}
		f.root = f.root.Content[0]
	}
	n := f.root
	for part := range strings.SplitSeq(field, ".") {
		name, index, listed := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		inner := member(n, name)
		if inner == nil {
			break
		}
		n = inner
		if i, err := strconv.Atoi(index); listed && err == nil && i < len(n.Content) {
			n = n.Content[i]
		}
	}
	return max(n.Line, 1)
}

// member returns the value of a field of a node, which may be spelled see_pricing or
// seePricing.
func member(n *yaml.Node, name string) *yaml.Node {
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if plain(n.Content[i].Value) == plain(name) {
			return n.Content[i+1]
		}
	}
	return nil
}

// writeEntries returns a piece of a file. Of several pieces with entries of one kind all
// but the first go without the name of the list.
func writeEntries(piece *pb.AccessFile, goesOn bool) ([]byte, error) {
	if proto.Size(piece) == 0 {
		return nil, nil
	}
	data, err := protoyaml.MarshalOptions{Indent: 2, UseProtoNames: true}.Marshal(piece)
	if err != nil {
		return nil, fmt.Errorf("write file: %w", err)
	}
	if goesOn {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return data, nil
}
