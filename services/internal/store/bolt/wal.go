package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"latchkey.dev/services/internal/store"
)

// walSuffix is that of the write-ahead log of a file.
const walSuffix = ".wal"

// The log has two halves, each a head and records after it. The newest head counts; the next
// is written to the other half, so that one is whole whenever the power fails. Records
// begin in the half of the newest head and may go on in the other.
//
//	head:   checksum, number, sequence, 1 if the file needs the log, meta
//	record: checksum, length, sequence, number of the head, writes
//	write:  length of the key, length of the value and 1 (0 deletes), key, value
//
// A record counts if its sequence is one more than that of the one before, and its
// checksum is right. One that is of a newer head than was found shows that this one is damaged. Numbers are little endian, lengths in a write are varints.
const (
	halfBytes   = 8 << 20
	walHead     = 4 << 10 // what a head takes
	recordHead  = 24
	mostRecords = 256 // of a half: what they free is not used again meanwhile
	stepBytes   = 256 << 10

	// maxRecord is of the greatest group that is logged.
	maxRecord = halfBytes - walHead
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the head of a half of the log.
type head struct {
	Number   uint64 // grows by one with each head
	Sequence uint64 // of the last record before it
	Needed   uint64 // 1 if the file must be put back to Base, and records follow
	Base     meta
}

// wal is the write-ahead log of a file: what was written to the file since it was last known
// to be on disk. It is used by one goroutine.
type wal struct {
	path   string
	noSync bool
	most   int      // records of a half
	file   *os.File // nil until it is needed
	head   head     // the newest
	half   int      // that it is in
	at     int64    // where the next record goes, in the file
	last   int64    // where the last went
	seq    uint64   // of the last record
	count  int      // of the records in the half that is being written
	sizes  [2]int64 // of the halves, as far as they were ever written
}

// left is what a log says that a process left.
type left struct {
	wal    wal
	writes []store.Write // of all records, in order
	count  uint64        // of the records
}

func half(n int) int64 { return int64(n) * halfBytes }

// readLog reads what is there of a log; nothing is no error.
func readLog(path string) (*left, error) {
	l := &left{wal: wal{path: path}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for n := range 2 {
		h, ok, err := readHead(f, n)
		if err != nil {
			return nil, err
		}
		if ok && h.Number > l.wal.head.Number {
			l.wal.head, l.wal.half = h, n
		}
	}
	l.wal.seq = l.wal.head.Sequence
	if l.wal.head.Needed == 0 {
		return l, nil
	}
	return l, l.readRecords(f)
}

func readHead(f *os.File, n int) (h head, ok bool, err error) {
	b := make([]byte, 4+binary.Size(h))
	if _, err := f.ReadAt(b, half(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return h, false, err
	}
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return h, false, nil
	}
	_, err = binary.Decode(b[4:], binary.LittleEndian, &h)
	return h, err == nil, err
}

// readRecords reads the records after the head: in its half, and then in the other.
func (l *left) readRecords(f *os.File) error {
	for _, n := range []int{l.wal.half, 1 - l.wal.half} {
		b := make([]byte, halfBytes)
		size, err := f.ReadAt(b, half(n))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for at := walHead; at < size; {
			body, ok := nextRecord(b[at:size], l.wal.seq+1)
			if !ok {
				break
			}
			if binary.LittleEndian.Uint64(b[at+16:]) > l.wal.head.Number {
				return l.unfit()
			}
			writes, err := readWrites(body)
			if err != nil {
				return err
			}
			l.writes = append(l.writes, writes...)
			l.wal.seq++
			l.count++
			at += recordHead + len(body)
		}
	}
	return nil
}

// nextRecord returns what is in the record that begins b, if it has the sequence and is whole.
func nextRecord(b []byte, seq uint64) (body []byte, ok bool) {
	if len(b) < recordHead || binary.LittleEndian.Uint64(b[8:]) != seq {
		return nil, false
	}
	size := uint64(binary.LittleEndian.Uint32(b[4:]))
	if size > uint64(len(b)-recordHead) {
		return nil, false
	}
	b = b[:recordHead+size]
	return b[recordHead:], binary.LittleEndian.Uint32(b) == crc32.Checksum(b[4:], castagnoli)
}

// unfit is the error of a log that is of another state than the file, or damaged.
func (l *left) unfit() error {
	return fmt.Errorf("its log %s does not fit it: if the file was put in the place of another one, remove the log", l.wal.path)
}

func appendWrite(b []byte, w store.Write) []byte {
	b = binary.AppendUvarint(b, uint64(len(w.Key)))
	if w.Value == nil {
		b = binary.AppendUvarint(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(w.Value))+1)
	}
	b = append(b, w.Key...)
	return append(b, w.Value...)
}

func readWrites(b []byte) (writes []store.Write, err error) {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		value, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || key+max(value, 1)-1 > uint64(len(b)-n-m) {
			return nil, errors.New("its log has a record that cannot be read")
		}
		b = b[n+m:]
		w := store.Write{Key: b[:key:key]}
		if b = b[key:]; value > 0 {
			w.Value = b[: value-1 : value-1]
			b = b[value-1:]
		}
		writes = append(writes, w)
	}
	return writes, nil
}

// record returns a record of these Updates, with room for what append adds.
func record(updates []*update, bytes int) []byte {
	b := make([]byte, recordHead, recordHead+bytes)
	for _, u := range updates {
		for _, write := range u.writes {
			b = appendWrite(b, write)
		}
	}
	return b
}

// stamp says what record it is.
func (w *wal) stamp(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-recordHead))
	binary.LittleEndian.PutUint64(b[8:], w.seq+1)
	binary.LittleEndian.PutUint64(b[16:], w.head.Number)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// open opens the log's file, or makes it.
func (w *wal) open() (err error) {
	if w.file != nil {
		return nil
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w.file = f // of which nothing is needed any more, so that it may be written as if it were new
	if info.Size() == 0 && !w.noSync {
		if err := errors.Join(f.Sync(), syncFolder(filepath.Dir(w.path))); err != nil {
			w.file = nil
			return errors.Join(err, f.Close(), os.Remove(w.path))
		}
	}
	return nil
}

// put writes a head to the other half, and reports whether some of it may be there if it failed.
// Records go after it.
func (w *wal) put(h head) (wrote bool, err error) {
	to := 1 - w.half
	h.Number = w.head.Number + 1
	b, err := binary.Append(make([]byte, 4), binary.LittleEndian, h)
	if err != nil {
		return false, err
	}
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	if n, err := w.file.WriteAt(b, half(to)); err != nil {
		return n > 0, fmt.Errorf("head of the log: %w", err)
	}
	if err := w.sync(); err != nil {
		return true, fmt.Errorf("head of the log: %w", err)
	}
	w.head, w.half = h, to
	return true, nil
}

// extend makes sure that a half has room on the disk up to an offset, so that later syncs
// have no lengths and no places of blocks to write.
func (w *wal) extend(n int, to int64) error {
	from := half(n) + w.sizes[n]
	if to <= from {
		return nil
	}
	to = min((to+stepBytes-1)/stepBytes*stepBytes, half(n)+halfBytes)
	if _, err := w.file.WriteAt(make([]byte, to-from), from); err != nil {
		return fmt.Errorf("make the log longer: %w", err)
	}
	w.sizes[n] = to - half(n)
	return nil
}

// fits reports whether a record of so many bytes has room in the half that is being written.
func (w *wal) fits(n, bytes int) bool {
	return w.count < w.most && w.at+int64(bytes) <= half(n)+halfBytes
}

// to has the next record be the first of a half.
func (w *wal) to(n int) { w.at, w.count = half(n)+walHead, 0 }

// append writes the next record to a half, and syncs it. After an error it may or may not
// be there, until erase.
func (w *wal) append(n int, record []byte) error {
	w.last = w.at
	w.stamp(record)
	if err := w.extend(n, w.at+int64(len(record))); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(record, w.at); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if err := w.sync(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	w.at += int64(len(record))
	w.seq++
	w.count++
	return nil
}

// erase takes the record back that append wrote last, or tried to.
func (w *wal) erase() error {
	if w.at > w.last {
		w.seq--
		w.count--
	}
	w.at = w.last
	if n := int(w.at / halfBytes); w.at >= half(n)+w.sizes[n] {
		return nil // there was no room for it
	}
	if _, err := w.file.WriteAt(make([]byte, recordHead), w.at); err != nil {
		return fmt.Errorf("take back what was logged: %w", err)
	}
	return w.sync()
}

func (w *wal) sync() error {
	if w.noSync {
		return nil
	}
	return datasync(w.file)
}

func (w *wal) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}

// remove removes the log, which the file needs no more.
func (w *wal) remove() error {
	if err := os.Remove(w.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
