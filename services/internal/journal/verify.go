package journal

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	journalpb "latchkey.dev/gen/go/latchkey/journal/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/store"
)

// A checkpoint is a signed note (c2sp.org/signed-note) whose text has these lines, as
// c2sp.org/tlog-checkpoint orders them: the journal's name, the revision, the hash of that
// entry in base64, and when it was found whole.
type checkpoint struct {
	journal  string
	revision int64
	hash     []byte
	time     time.Time
}

// domain is what the names of keys and journals begin with.
const domain = fault.Domain + "/journal/"

// timeLine begins the line with the time.
const timeLine = "time "

func (c checkpoint) text() string {
	hash := c.hash
	if c.revision == 0 {
		hash = make([]byte, sha256.Size)
	}
	return fmt.Sprintf("%s\n%d\n%s\n%s%s\n", c.journal, c.revision, base64.StdEncoding.EncodeToString(hash),
		timeLine, c.time.UTC().Format(time.RFC3339Nano))
}

// journalName names one journal of a source among all.
func (s *Source) journalName(tenant string) string { return domain + s.Name + "/" + tenant }

// verifierKey returns the public key of a source's checkpoints as signed notes write it.
func (s *Source) verifierKey(key ed25519.PrivateKey) (string, error) {
	return note.NewEd25519VerifierKey(domain+s.Name, key.Public().(ed25519.PublicKey))
}

// signerKey writes the key as package note reads it.
func signerKey(name string, key ed25519.PrivateKey) (string, error) {
	public, err := note.NewEd25519VerifierKey(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return "", err
	}
	const ed25519Algorithm = 1
	id := strings.Split(public, "+")[1]
	return "PRIVATE+KEY+" + name + "+" + id + "+" + base64.StdEncoding.EncodeToString(append([]byte{ed25519Algorithm}, key.Seed()...)), nil
}

func (s *Source) sign(ctx context.Context, c checkpoint) (string, error) {
	key, err := s.Store.Signer(ctx)
	if err != nil {
		return "", fmt.Errorf("read the key for checkpoints: %w", err)
	}
	secret, err := signerKey(domain+s.Name, key)
	if err != nil {
		return "", err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return "", err
	}
	signed, err := note.Sign(&note.Note{Text: c.text()}, signer)
	return string(signed), err
}

// open reads a checkpoint that a caller kept, if this source signed it for the journal.
func (s *Source) open(ctx context.Context, text, journal string) (*checkpoint, error) {
	if text == "" {
		return nil, nil
	}
	key, err := s.Store.Signer(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the key for checkpoints: %w", err)
	}
	public, err := s.verifierKey(key)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return nil, err
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return nil, fault.Invalid("checkpoint", "must be one that %s has signed, whole and unchanged", s.Name)
	}
	c, err := parse(n.Text)
	if err != nil || c.journal != journal {
		return nil, fault.Invalid("checkpoint", "must be of this journal, %s", journal)
	}
	return c, nil
}

func parse(text string) (*checkpoint, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 4 {
		return nil, errors.New("a checkpoint has four lines")
	}
	c := &checkpoint{journal: lines[0]}
	var errs [3]error
	c.revision, errs[0] = strconv.ParseInt(lines[1], 10, 64)
	c.hash, errs[1] = base64.StdEncoding.DecodeString(lines[2])
	c.time, errs[2] = time.Parse(time.RFC3339Nano, strings.TrimPrefix(lines[3], timeLine))
	return c, errors.Join(errs[:]...)
}

// progressEvery is after how many entries it is told how far the proof is.
const progressEvery = 1000

// VerifyJournal proves a journal whole.
func (s *Server) VerifyJournal(req *journalpb.VerifyJournalRequest, stream grpc.ServerStreamingServer[journalpb.VerifyJournalResponse]) error {
	ctx := stream.Context()
	src, err := s.source(req.GetSource())
	if err != nil {
		return err
	}
	tenant, _ := src.tenant(ctx)
	kept, err := src.open(ctx, req.GetCheckpoint(), src.journalName(tenant))
	if err != nil {
		return err
	}
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	default:
		return fault.Limit("journals that are verified", time.Second)
	}
	p := &proof{kept: kept, send: stream.Send}
	if err := src.Store.VerifyChain(ctx, tenant, p.visit); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	last := p.progress()
	last.Checkpoint, err = src.sign(ctx, checkpoint{src.journalName(tenant), p.last.Revision, p.last.Hash, s.now()})
	if err != nil {
		return err
	}
	return stream.Send(last)
}

// proof is how far a journal is proven.
type proof struct {
	kept   *checkpoint // nil if the caller has none
	proven bool        // the kept one
	last   store.Link
	n      int
	send   func(*journalpb.VerifyJournalResponse) error
}

func (p *proof) visit(l store.Link) error {
	p.last = l
	if p.kept != nil && !p.proven {
		switch {
		case l.Revision == p.kept.revision:
			if l.Revision > 0 && !bytes.Equal(l.Hash, p.kept.hash) {
				return differs(l.Revision, "entry is not the one of the checkpoint")
			}
			p.proven = true
		case l.Revision == l.Base && l.Base > p.kept.revision:
			return outOfReach(p.kept.revision, l.Base)
		}
	}
	if p.n++; p.n%progressEvery != 0 {
		return nil
	}
	return p.send(p.progress())
}

// end says what is wrong if the journal ended before the checkpoint.
func (p *proof) end() error {
	if p.kept != nil && !p.proven {
		return differs(p.last.Revision+1, "the journal ends before the checkpoint")
	}
	return nil
}

func (p *proof) progress() *journalpb.VerifyJournalResponse {
	return &journalpb.VerifyJournalResponse{
		Revision: p.last.Revision, BaseRevision: p.last.Base, HeadRevision: max(p.last.Head, p.last.Revision),
		CheckpointProven: p.proven,
	}
}

func differs(revision int64, what string) error {
	return fault.New(codes.DataLoss, faultpb.Reason_REASON_JOURNAL_DAMAGED,
		fmt.Sprintf("the journal is damaged at revision %d: %s", revision, what),
		map[string]string{"revision": strconv.FormatInt(revision, 10), "what": what})
}

func outOfReach(revision, base int64) error {
	return fault.New(codes.OutOfRange, faultpb.Reason_REASON_JOURNAL_COMPACTED,
		fmt.Sprintf("the checkpoint of revision %d can no longer be proven: the journal begins after %d", revision, base),
		map[string]string{"revision": strconv.FormatInt(revision, 10), "base_revision": strconv.FormatInt(base, 10)})
}

// GetCheckpointKey returns the public key of a source.
func (s *Server) GetCheckpointKey(ctx context.Context, req *journalpb.GetCheckpointKeyRequest) (*journalpb.GetCheckpointKeyResponse, error) {
	src, err := s.source(req.GetSource())
	if err != nil {
		return nil, err
	}
	key, err := src.Store.Signer(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the key for checkpoints: %w", err)
	}
	public, err := src.verifierKey(key)
	return &journalpb.GetCheckpointKeyResponse{VerifierKey: public}, err
}
