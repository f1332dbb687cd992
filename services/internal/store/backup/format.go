package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	storepb "latchkey.dev/gen/go/latchkey/store/v1"
)

// Format is the version of the format of backups.
const Format = 1

const (
	magic = "latchkey backup\n"

	// longest is more than any chunk has: a longer one is no chunk.
	longest = 1 << 30
)

// Writer writes the chunks of a backup.
type Writer struct {
	to      io.Writer
	sum     [sha256.Size]byte // of the last chunk
	written int64
	buf     []byte
}

// NewWriter begins a backup.
func NewWriter(to io.Writer, h *storepb.BackupHeader) (*Writer, error) {
	w := &Writer{to: to, sum: sha256.Sum256([]byte(magic)), written: int64(len(magic))}
	if _, err := io.WriteString(to, magic); err != nil {
		return nil, err
	}
	return w, w.Write(&storepb.BackupChunk{Kind: &storepb.BackupChunk_Header{Header: h}})
}

// Write writes a chunk.
func (w *Writer) Write(c *storepb.BackupChunk) error {
	const lead = 4 + sha256.Size
	var err error
	w.buf, err = proto.MarshalOptions{}.MarshalAppend(append(w.buf[:0], make([]byte, lead)...), c)
	if err != nil {
		return err
	}
	if len(w.buf) > longest {
		return fmt.Errorf("a chunk of %d bytes is too long", len(w.buf))
	}
	binary.BigEndian.PutUint32(w.buf, uint32(len(w.buf)-lead))
	w.sum = link(w.sum, w.buf[:4], w.buf[lead:])
	copy(w.buf[4:], w.sum[:])
	w.written += int64(len(w.buf))
	_, err = w.to.Write(w.buf)
	return err
}

// link returns the checksum of a chunk.
func link(before [sha256.Size]byte, length, message []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(before[:])
	h.Write(length)
	h.Write(message)
	h.Sum(sum[:0])
	return sum
}

// Reader reads the chunks of a backup, and returns none that is not as it was written.
type Reader struct {
	from   *bufio.Reader
	header *storepb.BackupHeader
	sum    [sha256.Size]byte
	read   int64
	ended  bool
}

// Damage reports a backup that is not what was written.
type Damage struct {
	At   int64 // how many bytes before it are right
	What string
}

// Error says what is wrong, and where.
func (d *Damage) Error() string {
	return fmt.Sprintf("the backup is damaged after %d bytes: %s", d.At, d.What)
}

func (r *Reader) damage(format string, args ...any) error {
	return &Damage{r.read, fmt.Sprintf(format, args...)}
}

// NewReader reads the beginning of a backup.
func NewReader(from io.Reader) (*Reader, error) {
	r := &Reader{from: bufio.NewReaderSize(from, 1<<16), sum: sha256.Sum256([]byte(magic))}
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(r.from, start); err != nil && !short(err) {
		return nil, err
	}
	if string(start) != magic {
		return nil, r.damage("it does not begin as a backup does")
	}
	r.read = int64(len(magic))
	c, err := r.chunk()
	if err != nil {
		return nil, err
	}
	if r.header = c.GetHeader(); r.header == nil {
		return nil, r.damage("it has no header")
	}
	if r.header.GetFormat() != Format {
		return nil, fmt.Errorf("the backup is of format %d, written by a newer version; this one knows format %d", r.header.GetFormat(), Format)
	}
	return r, nil
}

// Peek returns what a backup says of itself, and consumes nothing. If it is damaged, or its
// beginning is longer than the reader's buffer, it returns nil.
func Peek(from *bufio.Reader) *storepb.BackupHeader {
	const lead = len(magic) + 4 + sha256.Size
	start, err := from.Peek(lead)
	if err != nil {
		return nil
	}
	n := int(binary.BigEndian.Uint32(start[len(magic):]))
	if start, err = from.Peek(lead + n); err != nil {
		return nil
	}
	r, err := NewReader(bytes.NewReader(start))
	if err != nil {
		return nil
	}
	return r.Header()
}

// Header returns what the backup says of itself.
func (r *Reader) Header() *storepb.BackupHeader { return r.header }

// Next returns the next chunk, the last of which is a BackupEnd, and then io.EOF.
func (r *Reader) Next() (*storepb.BackupChunk, error) {
	if r.ended {
		switch _, err := r.from.ReadByte(); {
		case err == nil:
			return nil, r.damage("something follows its end")
		default:
			return nil, err
		}
	}
	c, err := r.chunk()
	if err != nil {
		return nil, err
	}
	if c.GetHeader() != nil {
		return nil, r.damage("it has another header")
	}
	r.ended = c.GetEnd() != nil
	return c, nil
}

func short(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func (r *Reader) chunk() (*storepb.BackupChunk, error) {
	var lead [4 + sha256.Size]byte
	if _, err := io.ReadFull(r.from, lead[:]); err != nil {
		if short(err) {
			return nil, r.damage("it ends too early")
		}
		return nil, err
	}
	n := binary.BigEndian.Uint32(lead[:4])
	if n > longest {
		return nil, r.damage("a chunk says that it has %d bytes", n)
	}
	// Grown as it is read: a length that is wrong takes no more memory than the file has.
	var message bytes.Buffer
	if got, err := io.CopyN(&message, r.from, int64(n)); err != nil {
		if short(err) {
			return nil, r.damage("it ends too early: a chunk has %d bytes of %d", got, n)
		}
		return nil, err
	}
	sum := link(r.sum, lead[:4], message.Bytes())
	if !bytes.Equal(sum[:], lead[4:]) {
		return nil, r.damage("the checksum of a chunk is wrong")
	}
	c := &storepb.BackupChunk{}
	if err := proto.Unmarshal(message.Bytes(), c); err != nil {
		return nil, r.damage("a chunk cannot be decoded: %v", err)
	}
	if c.GetKind() == nil {
		return nil, r.damage("a chunk is of a kind that this version does not know")
	}
	r.sum = sum
	r.read += int64(len(lead)) + int64(n)
	return c, nil
}
