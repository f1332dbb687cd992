package e2e

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	identitypb "latchkey.dev/gen/go/latchkey/identity/v1"
	operatorpb "latchkey.dev/gen/go/latchkey/operator/v1"
	servicerequestpb "latchkey.dev/gen/go/latchkey/servicerequest/v1"
	storepb "latchkey.dev/gen/go/latchkey/store/v1"

	"latchkey.dev/services/demo"
	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
)

// TestErasure closes a brand, and checks that no service keeps anything of its company once
// the time is over in which it could be brought back: no row, no name, no photo.
func TestErasure(t *testing.T) {
	config := servertest.Config(t)
	config.BootstrapCode, config.ServiceKey = code, strings.Repeat("k", 40)
	p, conn := inProcess(t, config, time.Now)
	c, err := demo.Fill(t.Context(), conn, code)
	if err != nil {
		t.Fatal(err)
	}
	request := attachPhoto(t, conn, c)
	folder := strings.TrimPrefix(config.Store, "bolt:")
	if rows, files := rowsOf(t, conn, config.ServiceKey, c.Organization), photos(t, folder); len(rows) < 100 || files == 0 {
		t.Fatalf("there are %d rows and %d files, so nothing is looked at", len(rows), files)
	}
	words := []string{request, c.Name, c.Properties[0].GetName(), c.Parts[0].GetName(), "harbour-lane.example"}
	for _, person := range c.People {
		words = append(words, person.Name)
	}
	if n := found(t, conn, config.ServiceKey, words); len(n) != len(words) {
		t.Fatalf("of %q there are only %v, so nothing is looked for", words, n)
	}
	closeBrand(t, conn, c)
	p.Stop()

	// One day early, nothing is gone.
	p, conn = inProcess(t, config, func() time.Time { return time.Now().Add(27 * 24 * time.Hour) })
	if rows := rowsOf(t, conn, config.ServiceKey, c.Organization); len(rows) < 100 {
		t.Errorf("%d rows are left a day before the time", len(rows))
	}
	p.Stop()

	_, conn = inProcess(t, config, func() time.Time { return time.Now().Add(29 * 24 * time.Hour) })
	var rows []string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * pace) {
		if rows = rowsOf(t, conn, config.ServiceKey, c.Organization); len(rows) == 0 {
			break
		}
	}
	if len(rows) > 0 {
		t.Errorf("%d rows are left, such as %q", len(rows), rows[0])
	}
	if n := photos(t, folder); n > 0 {
		t.Errorf("%d files are left", n)
	}
	for word, n := range found(t, conn, config.ServiceKey, words) {
		if n > 0 {
			t.Errorf("%q is still in %d rows", word, n)
		}
	}
}

// found counts the rows that have each of some words.
func found(t *testing.T, conn *grpc.ClientConn, key string, words []string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, all := range everyRow(t, conn, key) {
		for _, row := range all {
			for _, word := range words {
				if strings.Contains(string(row.GetValue()), word) {
					n[word]++
				}
			}
		}
	}
	return n
}

// inProcess starts all services in this process.
func inProcess(t *testing.T, config server.Config, now func() time.Time) (*server.Process, *grpc.ClientConn) {
	t.Helper()
	var parts []server.Part
	for _, name := range names {
		parts = append(parts, services[name])
	}
	p, err := server.Start(t.Context(), config, parts, server.Options{Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	select {
	case <-p.Serving():
	case <-p.Done():
		t.Fatal(p.Err())
	}
	conn, err := grpc.NewClient(p.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return p, conn
}

// attachPhoto makes a service request with a photo, and returns its title.
func attachPhoto(t *testing.T, conn *grpc.ClientConn, c *demo.Company) (title string) {
	t.Helper()
	title = "Radiator in the hall stays cold"
	ctx := c.As(t.Context(), "OW")
	made, err := servicerequestpb.NewServiceRequestServiceClient(conn).CreateServiceRequest(ctx, &servicerequestpb.CreateServiceRequestRequest{
		PropertyId: c.Properties[0].GetId(), Title: title,
	})
	if err == nil {
		_, err = upload(ctx, conn, &servicerequestpb.UploadAttachmentRequest{Part: &servicerequestpb.UploadAttachmentRequest_Metadata{
			Metadata: &servicerequestpb.UploadMetadata{ServiceRequestId: made.GetServiceRequest().GetId(), FileName: "radiator.png", ContentType: "image/png"},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return title
}

func closeBrand(t *testing.T, conn *grpc.ClientConn, c *demo.Company) {
	t.Helper()
	brands, ctx := identitypb.NewBrandServiceClient(conn), c.As(t.Context(), "BA")
	got, err := brands.GetBrand(ctx, &identitypb.GetBrandRequest{})
	if err == nil {
		_, err = brands.CloseBrand(ctx, &identitypb.CloseBrandRequest{Id: got.GetBrand().GetId(), Name: got.GetBrand().GetName()})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// everyRow returns all that is in the stores, by service.
func everyRow(t *testing.T, conn *grpc.ClientConn, key string) map[string][]*storepb.Pair {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), authz.ServiceHeader, "latchkey", authz.ServiceKeyHeader, key)
	all := map[string][]*storepb.Pair{}
	for _, service := range names {
		for start := []byte{0}; start != nil; {
			page, err := operatorpb.NewOperatorServiceClient(conn).ReadPairs(ctx, &operatorpb.ReadPairsRequest{
				Service: service, Start: start, End: []byte{0xff},
			})
			if err != nil {
				t.Fatal(err)
			}
			start = nil
			if pairs := page.GetPairs(); len(pairs) > 0 {
				all[service] = append(all[service], pairs...)
				start = append(slices.Clone(pairs[len(pairs)-1].GetKey()), 0)
			}
		}
	}
	return all
}

// rowsOf returns the keys of a tenant's rows, but for those that tell where its journal ends
// and how far it has come with the events of others.
func rowsOf(t *testing.T, conn *grpc.ClientConn, key, tenant string) (rows []string) {
	t.Helper()
	const space = 1 + 36 + 2 // after a byte, the tenant and two bytes
	for service, all := range everyRow(t, conn, key) {
		for _, row := range all {
			k := string(row.GetKey())
			if len(k) > space && k[1:37] == tenant && !strings.ContainsAny(k[space:space+1], "bcp") {
				rows = append(rows, service+": "+k)
			}
		}
	}
	return rows
}

// photos counts the files of attachments in a folder of stores.
func photos(t *testing.T, folder string) (n int) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(filepath.Join(folder, "blobs")), ".", func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
