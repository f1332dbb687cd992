package server

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/seal"
	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

// importer does the steps of the import of an organization in stores that this process has
// open.
type importer struct {
	stores   map[string]*store.DB // by part
	seal     func() (*seal.Box, error)
	passkeys string // the domain that passkeys are for
	replace  bool   // nobody else has the stores open, so that what an organization left can go
}

// do does a step. The export is read as far as the step needs it, and tell called now and
// then with how many rows are there.
func (im *importer) do(ctx context.Context, b *operatorpb.ImportBegin, export io.Reader, tell func(rows int64)) (*operatorpb.ImportOrganizationResponse, error) {
	db, ok := im.stores[b.GetService()]
	if !ok {
		return nil, fault.NotFound("store", b.GetService())
	}
	shared, _ := db.Schema().Tenancy()
	switch b.GetStep() {
	case operatorpb.ImportStep_IMPORT_STEP_STAGE:
		return im.stage(ctx, db, b, export, tell)
	case operatorpb.ImportStep_IMPORT_STEP_LIST:
		return &operatorpb.ImportOrganizationResponse{}, db.ListArrival(ctx, b.GetOrganization(), b.GetClaim())
	case operatorpb.ImportStep_IMPORT_STEP_FINISH:
		return &operatorpb.ImportOrganizationResponse{}, db.FinishArrival(ctx, b.GetOrganization(), b.GetClaim())
	}
	if shared == "" {
		return nil, fault.Invalid("begin.service", "must be the one that keeps the people")
	}
	switch b.GetStep() {
	case operatorpb.ImportStep_IMPORT_STEP_CLAIM:
		held, ok, err := db.ClaimArrival(ctx, b.GetOrganization(), store.Claim{Number: b.GetClaim(), Beat: b.GetBeat()})
		return &operatorpb.ImportOrganizationResponse{Claim: held.Number, Beat: held.Beat, Claimed: ok}, err
	case operatorpb.ImportStep_IMPORT_STEP_BEAT:
		return &operatorpb.ImportOrganizationResponse{}, db.BeatArrival(ctx, b.GetOrganization(), b.GetClaim())
	case operatorpb.ImportStep_IMPORT_STEP_RELEASE:
		return &operatorpb.ImportOrganizationResponse{}, db.ReleaseArrival(ctx, b.GetOrganization(), b.GetClaim())
	}
	return im.people(ctx, db, b, export)
}

// stage puts the organization's own tenant into a store.
func (im *importer) stage(ctx context.Context, db *store.DB, b *operatorpb.ImportBegin, export io.Reader, tell func(rows int64)) (*operatorpb.ImportOrganizationResponse, error) {
	a, err := db.NewArrival(ctx, b.GetOrganization(), b.GetClaim(), b.GetChecksum(), b.GetAgain(), im.replace)
	if err != nil || a == nil {
		return &operatorpb.ImportOrganizationResponse{}, err
	}
	e, err := backup.Stage(ctx, export, map[string]*store.Arrival{b.GetService(): a}, nil, func() { tell(a.Rows()) })
	if err == nil {
		err = isOf(e, b)
	}
	return &operatorpb.ImportOrganizationResponse{Rows: a.Rows()}, err
}

// isOf wants the export to be the one that is being imported.
func isOf(e *backup.Exported, b *operatorpb.ImportBegin) error {
	if e.Header.GetTenant() != b.GetOrganization() || string(e.Checksum) != string(b.GetChecksum()) {
		return fault.Invalid("export", "is not the one that is being imported")
	}
	return nil
}

// people finds out what stands against taking in the organization and its people, or takes
// them in.
func (im *importer) people(ctx context.Context, db *store.DB, b *operatorpb.ImportBegin, export io.Reader) (*operatorpb.ImportOrganizationResponse, error) {
	e, records, err := backup.Records(ctx, export, b.GetService())
	if err == nil {
		err = isOf(e, b)
	}
	if err != nil {
		return nil, err
	}
	a := &store.Arriving{
		Organization: b.GetOrganization(), Checksum: b.GetChecksum(), Claim: b.GetClaim(), Brand: b.GetBrand(), Renames: b.GetRenames(),
		Seal: im.sealed, Records: records, Method: operatorpb.OperatorService_ImportOrganization_FullMethodName[1:],
		Without: map[store.Kind]bool{store.Passkeys: e.Header.GetExport().GetPasskeyDomain() != im.passkeys},
	}
	if b.GetStep() == operatorpb.ImportStep_IMPORT_STEP_CHECK {
		problems, again, err := db.CheckArrival(ctx, a)
		return &operatorpb.ImportOrganizationResponse{Problems: problems, Again: again}, err
	}
	done, err := db.Admit(ctx, a)
	return &operatorpb.ImportOrganizationResponse{
		Rows: done.Records, KnownPeople: done.Known, NewPeople: done.New, PasskeysLeftOut: done.Left,
	}, err
}

func (im *importer) sealed(name string, secret []byte) ([]byte, error) {
	box, err := im.seal()
	if err != nil {
		return nil, fault.Refused("a secret cannot be encrypted here: %v", err)
	}
	return box.Seal(name, secret), nil
}

func (s *operator) ImportOrganization(stream grpc.ClientStreamingServer[operatorpb.ImportOrganizationRequest, operatorpb.ImportOrganizationResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetBegin() == nil {
		return fault.Invalid("begin", "must come first")
	}
	ctx, cancel := until(stream.Context(), s.draining)
	defer cancel()
	resp, err := s.importer.do(ctx, first.GetBegin(), &pieces{stream: stream}, func(int64) {})
	if err == nil {
		return stream.SendAndClose(resp)
	}
	if stream.Context().Err() == nil && ctx.Err() != nil {
		return fault.Unreachable(first.GetBegin().GetService())
	}
	return err
}

// pieces reads an export that comes in pieces.
type pieces struct {
	stream grpc.ClientStreamingServer[operatorpb.ImportOrganizationRequest, operatorpb.ImportOrganizationResponse]
	rest   []byte
}

// Read implements io.Reader.
func (p *pieces) Read(into []byte) (int, error) {
	for len(p.rest) == 0 {
		req, err := p.stream.Recv()
		if err != nil {
			return 0, err
		}
		if req.GetBegin() != nil {
			return 0, fault.Invalid("begin", "must come once")
		}
		p.rest = req.GetPiece()
	}
	n := copy(into, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// sendStep has the process that has a store open do a step.
func sendStep(ctx context.Context, client operatorpb.OperatorServiceClient, b *operatorpb.ImportBegin, export io.Reader) (*operatorpb.ImportOrganizationResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ImportOrganization(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&operatorpb.ImportOrganizationRequest{Kind: &operatorpb.ImportOrganizationRequest_Begin{Begin: b}})
	for piece := make([]byte, pieceBytes); err == nil && export != nil; {
		n, readErr := io.ReadFull(export, piece)
		if n > 0 {
			err = stream.Send(&operatorpb.ImportOrganizationRequest{Kind: &operatorpb.ImportOrganizationRequest_Piece{Piece: piece[:n]}})
		}
		if readErr == io.EOF || readErr == io.ErrUnexpectedEOF {
			break
		}
		if readErr != nil {
			return nil, fmt.Errorf("read the export: %w", readErr)
		}
	}
	if err != nil && err != io.EOF { // EOF: the answer says what is wrong
		return nil, err
	}
	return stream.CloseAndRecv()
}

// pieceBytes is how much of an export is sent at once.
const pieceBytes = 256 << 10

// checkExport verifies an export in stores that are empty, and returns how much it has.
func checkExport(ctx context.Context, export io.Reader, organization string, stores map[string]*store.DB, tell func(rows int64)) (*backup.Exported, error) {
	arrivals := map[string]*store.Arrival{}
	for service, db := range stores {
		a, err := db.NewArrival(ctx, organization, 0, nil, false, false)
		if err != nil {
			return nil, err
		}
		arrivals[service] = a
	}
	records := map[string][]*storepb.BackupRecord{}
	e, err := backup.Stage(ctx, export, arrivals, func(r *storepb.BackupRecords) error {
		records[r.GetService()] = append(records[r.GetService()], r.GetRecords()...)
		return nil
	}, func() {
		var rows int64
		for _, a := range arrivals {
			rows += a.Rows()
		}
		tell(rows)
	})
	if err != nil {
		return nil, err
	}
	for service, db := range stores {
		if shared, _ := db.Schema().Tenancy(); shared != "" {
			if err := (&store.Arriving{Organization: organization, Records: records[service]}).Check(db.Schema()); err != nil {
				return nil, fmt.Errorf("the records of %s: %w", service, err)
			}
		}
		if err := db.ListArrival(ctx, organization, 0); err != nil {
			return nil, err
		}
	}
	return e, nil
}
