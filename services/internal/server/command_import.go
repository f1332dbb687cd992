package server

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"

	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/store/backup"
)

func importCommand() command {
	return command{
		name: "import", operands: "FILE", summary: "bring an exported organization into this suite",
		about: `Brings an organization that export has written, from a path, a URL or - for standard input, into the suite of --store, and gives it to --brand. Everything is verified before anybody sees any of it. If it is interrupted, call it again with the same file: it goes on.

It refuses if the organization is there already, or if another call is bringing it at the moment. One that was killed is found dead after some seconds. What it left here when it was erased is replaced, which needs the services to be stopped.

Somebody of the organization who is here already, under the same id, keeps the address and what he signs in with, and joins the organization. Where somebody else has an address that somebody of the organization has, it refuses and lists them: nobody is ever taken for another. --rename gives those who come another address.

Passkeys come along if --passkey-domain is here what it was there. What export has encrypted is opened with --identity-file or --passphrase-file, and is nowhere on disk in the open.`,
		shared: append([]string{"blobs", "seal-key-file", "passkey-domain", "issuer"}, toStores...),
		declare: func(f *flag.FlagSet) action {
			brand := f.String("brand", "", "id or name of the `brand` that is to have the organization")
			renames := f.String("rename", "", "`file` with other addresses for people who come, one a line: the address there, a tab, the address here")
			identities := decrypting(f)
			return func(ctx context.Context, in *invocation) (_ report, err error) {
				if len(in.operands) != 1 {
					return nil, usageError("expected one FILE to read")
				}
				if *brand == "" {
					return nil, usageError("expected --brand")
				}
				if in.identities, err = identities(); err != nil {
					return nil, err
				}
				pairs, err := readRenames(*renames)
				if err != nil {
					return nil, err
				}
				return in.importFrom(ctx, in.operands[0], *brand, pairs)
			}
		},
	}
}

// readRenames reads the file of --rename.
func readRenames(name string) (map[string]string, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	all, taken := map[string]string{}, map[string]bool{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		if strings.TrimSpace(line) == "" {
			continue
		}
		was, is, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		was, is = strings.ToLower(strings.TrimSpace(was)), strings.ToLower(strings.TrimSpace(is))
		if !ok || was == "" || is == "" {
			return nil, fmt.Errorf("%s:%d: expected an address, a tab and another address", name, n)
		}
		if _, twice := all[was]; twice || taken[is] {
			return nil, fmt.Errorf("%s:%d: an address is there twice", name, n)
		}
		all[was], taken[is] = is, true
	}
	return all, nil
}

// imported is the outcome of import.
type imported struct {
	Organization string  `json:"organization"`
	Rows         int64   `json:"rows"`
	Records      int64   `json:"records"`
	New          int64   `json:"new_people"`
	Known        int64   `json:"known_people"`
	Blobs        int64   `json:"blobs"`
	LeftOut      int64   `json:"passkeys_left_out"`
	Seconds      float64 `json:"seconds"`
}

func (i *imported) String() string {
	text := fmt.Sprintf("imported organization %s: %d rows, %d records of the directory, %d people who are new here and %d who were here, %d blobs, in %.1f s",
		i.Organization, i.Rows, i.Records, i.New, i.Known, i.Blobs, i.Seconds)
	if i.LeftOut > 0 {
		text += fmt.Sprintf("\n%d records of passkeys were left out: they are for another domain", i.LeftOut)
	}
	return text
}

// importing is the import of one file.
type importing struct {
	in       *invocation
	file     *os.File
	again    func() io.Reader // the export from its beginning
	exported *backup.Exported
	stores   *stores
	local    *importer // of the stores that this process has opened
	alone    bool      // nobody else can have any of them open
	begin    operatorpb.ImportBegin
	done     imported
}

func (in *invocation) importFrom(ctx context.Context, name, brand string, renames map[string]string) (_ report, err error) {
	start := time.Now()
	im := &importing{in: in}
	remove, err := im.openFile(ctx, name)
	if err != nil {
		return nil, err
	}
	defer remove()
	if im.stores, err = in.openStores(ctx); err != nil {
		return nil, err
	}
	defer im.stores.close()
	closeStores, err := im.openLocal(ctx)
	defer func() { err = errors.Join(err, closeStores()) }()
	if err != nil {
		return nil, err
	}
	h := im.exported.Header
	im.done.Organization = h.GetTenant()
	im.begin = operatorpb.ImportBegin{Organization: h.GetTenant(), Checksum: im.exported.Checksum, Brand: brand, Renames: renames}
	if err := im.claimed(ctx, im.run); err != nil {
		return nil, err
	}
	im.done.Seconds = time.Since(start).Seconds()
	return &im.done, nil
}

// openFile opens the export, and copies what cannot be read several times into a file of its
// own. It reads all of it, so that nothing is done with one that is damaged.
func (im *importing) openFile(ctx context.Context, name string) (remove func(), err error) {
	from, err := im.in.source(ctx, name)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	remove = func() { im.file.Close() }
	if path, ok := local(name); ok && name != "-" {
		im.file, err = os.Open(path)
	} else if im.file, err = os.CreateTemp("", "latchkey-import-*"); err == nil {
		remove = func() { im.file.Close(); os.Remove(im.file.Name()) }
		_, err = io.Copy(im.file, from)
	}
	if err == nil {
		im.again, err = im.in.decryptedAt(name, im.file)
	}
	if err == nil {
		im.exported, err = backup.EachChunk(ctx, im.again(), func(*storepb.BackupChunk) error { return nil })
	}
	if err == nil {
		err = im.fits()
	}
	if err != nil && im.file != nil {
		remove()
	}
	return remove, err
}

// fits wants the export to be of the services that this program has.
func (im *importing) fits() error {
	h := im.exported.Header
	sorted := func(names []string) string { return strings.Join(slices.Sorted(slices.Values(names)), ", ") }
	if got, want := sorted(h.GetServices()), sorted(im.in.names()); got != want {
		return fmt.Errorf("the export is of the services %s, and this program has %s", got, want)
	}
	if h.GetTenant() == "" {
		return errors.New("the export names no organization")
	}
	return nil
}

// openLocal opens the stores that no other process has open. Those of a database are
// open in others too, if there is a replica on a list.
func (im *importing) openLocal(ctx context.Context) (closeAll func() error, err error) {
	in := im.in
	im.local = &importer{
		stores: map[string]*store.DB{}, seal: in.box(), passkeys: in.config.passkeys(in.config.Issuer).Domain, replace: true,
	}
	closeAll = func() error {
		var errs []error
		for _, db := range im.local.stores {
			errs = append(errs, db.Close())
		}
		return errors.Join(errs...)
	}
	_, inDatabase := in.config.database()
	im.alone = !inDatabase
	for _, o := range im.stores.all {
		if o.engine == nil {
			im.alone = false
			continue
		}
		engine := o.engine
		o.engine = nil // the DB closes it
		db, err := in.openDB(ctx, o.service, engine)
		if err != nil {
			return closeAll, fmt.Errorf("open the store of %s: %w", o.service, err)
		}
		im.local.stores[o.service] = db
		replicas, err := db.Listed(ctx)
		if err != nil {
			return closeAll, err
		}
		im.local.replace = im.local.replace && len(replicas.List) == 0
	}
	return closeAll, nil
}

// run does all steps.
func (im *importing) run(ctx context.Context) error {
	directory := im.directory()
	checked, err := im.step(ctx, directory, operatorpb.ImportStep_IMPORT_STEP_CHECK)
	if err != nil {
		return err
	}
	if n := len(checked.GetProblems()); n > 0 {
		for _, problem := range checked.GetProblems() {
			im.in.note("%s", problem)
		}
		return fmt.Errorf("nothing was imported: %d things stand against it", n)
	}
	if im.begin.Again = checked.GetAgain(); im.begin.Again {
		im.in.note("going on with an import that was interrupted")
	}
	if err := im.everywhere(ctx, operatorpb.ImportStep_IMPORT_STEP_STAGE); err != nil {
		return err
	}
	if err := im.blobs(ctx); err != nil {
		return err
	}
	if err := im.everywhere(ctx, operatorpb.ImportStep_IMPORT_STEP_LIST); err != nil {
		return err
	}
	admitted, err := im.step(ctx, directory, operatorpb.ImportStep_IMPORT_STEP_ADMIT)
	if err != nil {
		return err
	}
	im.done.Records, im.done.New, im.done.Known = admitted.GetRows(), admitted.GetNewPeople(), admitted.GetKnownPeople()
	im.done.LeftOut = admitted.GetPasskeysLeftOut()
	return im.everywhere(ctx, operatorpb.ImportStep_IMPORT_STEP_FINISH)
}

// directory returns the service that keeps the people.
func (im *importing) directory() string {
	for _, o := range im.stores.all {
		if shared, _ := im.in.schema(o.service).Tenancy(); shared != "" {
			return o.service
		}
	}
	return ""
}

func (im *importing) everywhere(ctx context.Context, step operatorpb.ImportStep) error {
	for _, o := range im.stores.all {
		resp, err := im.step(ctx, o.service, step)
		if err != nil {
			return err
		}
		im.done.Rows += resp.GetRows()
	}
	return nil
}

// step does a step in the store of a service.
func (im *importing) step(ctx context.Context, service string, step operatorpb.ImportStep) (resp *operatorpb.ImportOrganizationResponse, err error) {
	b := &operatorpb.ImportBegin{
		Service: service, Step: step, Organization: im.begin.GetOrganization(), Checksum: im.begin.GetChecksum(),
		Brand: im.begin.GetBrand(), Renames: im.begin.GetRenames(), Again: im.begin.GetAgain(), Claim: im.begin.GetClaim(),
	}
	var export io.Reader
	if step != operatorpb.ImportStep_IMPORT_STEP_LIST && step != operatorpb.ImportStep_IMPORT_STEP_FINISH {
		export = im.again()
	}
	if im.local.stores[service] != nil {
		resp, err = im.local.do(ctx, b, export, func(rows int64) { im.in.progress("%s: %d rows", service, rows) })
	} else {
		for _, o := range im.stores.all {
			if o.service == service {
				im.in.progress("%s: the process that has its store open takes it in", service)
				resp, err = sendStep(ctx, o.remote, b, export)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	return resp, nil
}

// blobs puts the photos and videos where the services find them.
func (im *importing) blobs(ctx context.Context) error {
	if !im.exported.Header.GetBlobs() {
		return nil
	}
	p := &Process{config: im.in.config}
	var err error
	im.done.Blobs, err = backup.Blobs(ctx, im.again(), im.done.Organization, func(service string) (*blob.Bucket, error) {
		return p.openBlobs(ctx, service)
	})
	return err
}

// verifyExport verifies an export in a folder that is empty.
func (in *invocation) verifyExport(ctx context.Context, from *bufio.Reader, organization, folder string) (v store.Verified, err error) {
	stores := map[string]*store.DB{}
	defer func() {
		for _, db := range stores {
			err = errors.Join(err, db.Close())
		}
	}()
	for _, service := range in.names() {
		engine, err := in.openEngine(ctx, "bolt:"+folder, service, store.MakeMissing)
		if err != nil {
			return v, err
		}
		if stores[service], err = in.openDB(ctx, service, engine); err != nil {
			return v, err
		}
	}
	e, err := checkExport(ctx, from, organization, stores, func(rows int64) { in.progress("read %d rows", rows) })
	if err != nil {
		return v, err
	}
	for _, service := range in.names() {
		one, err := stores[service].Verify(ctx, func(problem string) { in.note("%s: %s", service, problem) }, func(store.Verified) error { return ctx.Err() })
		if err != nil {
			return v, err
		}
		v = sum(v, one)
	}
	v.Rows += e.End.GetRecords()
	return v, nil
}
