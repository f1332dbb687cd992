package permissions

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "latchkey.dev/gen/go/latchkey/permissions/v1"

	"latchkey.dev/services/internal/store"
)

var seed = flag.Uint64("seed", 0, "what tests choose at random; 0 is something else each time, and is printed")

// chosenSeed returns the seed that was given, or another each time, and prints it.
func chosenSeed(t testing.TB) uint64 {
	s := *seed
	if s == 0 {
		s = uint64(rand.Uint32()) + 1
	}
	t.Logf("seed %d: repeat with -seed %d", s, s)
	return s
}

// batch is how many users an organization has of which the evaluation is compared.
const batch = 1000

// TestAMillionUsers compares the evaluation with the reference for organizations of
// random users, roles and groups in a store: with -long for a million users, and else
// for a part of them, each time another. What differs is made small and written to the
// corpus, which TestCorpus goes through.
func TestAMillionUsers(t *testing.T) {
	batches := 8
	switch {
	case *long:
		batches = 1_000_000 / batch
	case testing.Short():
		batches = 2
	}
	db, first := openStore(t), chosenSeed(t)
	var seen census
	for i := range batches {
		w := dice{newRand(first + uint64(i))}.world(batch)
		err := db.Update(tenant(t.Context()), func(tx *store.Tx) error {
			if err := w.put(tx); err != nil {
				return err
			}
			if err := w.compare(tx, &seen); err != nil {
				return err
			}
			return errRollback
		})
		if d, ok := errors.AsType[*mismatch](err); ok {
			t.Fatalf("seed %d: %s; kept in %s", first+uint64(i), d, keep(t, w, d))
		}
		if !errors.Is(err, errRollback) {
			t.Fatal(err)
		}
	}
	t.Log(seen)
	if seen.keys < batches*batch*3 || seen.gone < batches*batch || seen.ends < batches*batch/4 {
		t.Errorf("%v: too little to prove anything", seen)
	}
}

// census counts what was compared.
type census struct{ users, keys, gone, ends int }

func (c census) String() string {
	return fmt.Sprintf("%d users, %d keys that count, %d that gates took away, %d that end", c.users, c.keys, c.gone, c.ends)
}

// mismatch is what the service and the reference say otherwise.
type mismatch struct {
	user string
	at   time.Time
	what error
}

func (d *mismatch) Error() string { return fmt.Sprintf("%s at %s: %s", d.user, d.at, d.what) }

// compare holds what the service says about each user, loaded alone and with all, against
// the reference, at two instants.
func (w *world) compare(tx *store.Tx, seen *census) error {
	all := newLoader(tx)
	for i, id := range sorted(w.users) {
		for j := range 2 {
			at := boundaries[(i+3*j)%len(boundaries)]
			together := all.access(all.user(id))
			if err := agreeOn(w, together, id, at); err != nil {
				return &mismatch{id, at, err}
			}
			one := newLoader(tx)
			v, alone := together.judge(at), one.access(one.user(id)).judge(at)
			if v.set != alone.set {
				return &mismatch{id, at, errors.New("loaded alone it is otherwise")}
			}
			seen.keys += v.set.OnlyKeys().Len()
			seen.gone += v.layered.Without(v.set).Len()
			if !v.next.IsZero() {
				seen.ends++
			}
		}
		seen.users++
	}
	return nil
}

// boundaries are before, at and after the instants at which overrides of worlds end.
var boundaries = []time.Time{
	noon.Add(-time.Hour - 1), noon.Add(-time.Hour), noon.Add(-1), noon, noon.Add(1), noon.Add(time.Hour - 1), noon.Add(time.Hour), noon.Add(3 * time.Hour),
}

// put stores a world.
func (w *world) put(tx *store.Tx) error {
	for _, r := range w.roles {
		if !r.GetBuiltIn() {
			if err := roles.Put(tx, r); err != nil {
				return err
			}
		}
	}
	for _, g := range w.groups {
		if err := groups.Put(tx, g); err != nil {
			return err
		}
	}
	for _, u := range w.users {
		if err := accesses.Put(tx, u); err != nil {
			return err
		}
	}
	w.plan.Id = tx.Tenant()
	return plans.Put(tx, w.plan)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 2)) }

// dice makes worlds fast.
type dice struct{ *rand.Rand }

func (d dice) one(n int) bool { return d.IntN(n) == 0 }

func roll[T any](d dice, from []T) T { return from[d.IntN(len(from))] }

// world makes an organization in which layers meet often: all draw from few keys, with
// what these require. Some roles and groups are deleted, and some are not there.
func (d dice) world(users int) *world {
	w := emptyWorld()
	keys := d.keys()
	for i := range 6 {
		r := &pb.Role{Id: fmt.Sprint("role", i), Name: fmt.Sprint("role", i), Keys: d.some(keys, 8), Settings: d.settings()}
		if i == 5 {
			r.DeleteTime = timestamppb.New(noon)
		}
		w.roles[r.GetId()] = r
	}
	ids := append(sorted(w.roles), "", "gone")
	for i := range 12 {
		g := &pb.Group{
			Id: fmt.Sprint("group", i), Name: fmt.Sprint("group", i), RoleId: roll(d, ids),
			Grants: d.some(keys, 6), Denies: d.some(keys, 4), Settings: d.settings(),
		}
		if i == 11 {
			g.DeleteTime = timestamppb.New(noon)
		}
		w.groups[g.GetId()] = g
	}
	w.plan.Features = d.some(featureNames(), 6)
	groupIDs := append(sorted(w.groups), "", "", "", "", "gone")
	for i := range users {
		u := &pb.UserAccess{
			Id: fmt.Sprintf("user%04d", i), RoleId: roll(d, ids), GroupId: roll(d, groupIDs), RegionalManager: d.one(3), Settings: d.settings(),
		}
		if d.one(3) {
			u.ServiceAgentId = "agent"
		}
		for range d.IntN(7) {
			o := &pb.Override{Key: roll(d, keys), Effect: pb.Effect(1 + d.IntN(2)), SetBy: "somebody"}
			if d.one(2) {
				o.ExpireTime = timestamppb.New(noon.Add(time.Duration(d.IntN(5)-1) * time.Hour))
			}
			u.Overrides = append(u.Overrides, o)
		}
		w.users[u.GetId()] = u
	}
	return w
}

// keys draws keys with what they require, and those that surfaces need.
func (d dice) keys() []string {
	names := []string{"Web", "App"}
	for range 3 + d.IntN(10) {
		k := roll(d, allKeys)
		names = append(append(names, k.Name), k.Requires...)
	}
	return names
}

func (d dice) some(from []string, most int) (names []string) {
	for range d.IntN(most + 1) {
		names = append(names, roll(d, from))
	}
	return names
}

// settings draws some of the settings; mostly none.
func (d dice) settings() *pb.UserSettings {
	if !d.one(3) {
		return nil
	}
	s := &pb.UserSettings{}
	m := s.ProtoReflect()
	for i := range m.Descriptor().Fields().Len() {
		if fd := m.Descriptor().Fields().Get(i); boolSettings.has(int(fd.Number())) && d.one(3) {
			m.Set(fd, m.NewField(fd))
			if d.one(2) {
				m.Set(fd, protoTrue)
			}
		}
	}
	if d.one(4) {
		s.SearchScope = search(pb.SearchScope(1 + d.IntN(3)))
	}
	if d.one(4) {
		s.FutureVisibility = new(int32(d.IntN(4)))
	}
	return s
}

// FuzzEvaluation lets the fuzzer, which looks for new paths through the code, choose worlds.
// What it has found stays in testdata/fuzz.
func FuzzEvaluation(f *testing.F) {
	for i := range 16 {
		start := make([]byte, 8<<10) // of which a world is drawn
		random := rand.NewChaCha8([32]byte{byte(i)})
		if _, err := random.Read(start); err != nil {
			f.Fatal(err)
		}
		f.Add(start)
	}
	f.Fuzz(rapid.MakeFuzz(evaluationIsThatOfTheReference))
}

// corpus has worlds of which each is a case that is, or once was, hard.
const corpus = "testdata/worlds"

// keptWorld is a world in a file of the corpus.
type keptWorld struct {
	About  string              `json:"about"`
	Users  []json.RawMessage   `json:"users"`
	Roles  []json.RawMessage   `json:"roles,omitempty"`
	Groups []json.RawMessage   `json:"groups,omitempty"`
	Plan   []string            `json:"plan,omitempty"`         // its features
	Want   map[string][]string `json:"keys_at_noon,omitempty"` // by user; absent where only both need to agree
	Later  map[string][]string `json:"keys_at_one,omitempty"`  // an hour later
}

// TestCorpus goes through the corpus.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus, "*.json"))
	if err != nil || len(files) < 10 {
		t.Fatalf("the corpus has %d files: %v", len(files), err)
	}
	for _, file := range files {
		k, w := readWorld(t, file)
		for id := range w.users {
			for _, at := range boundaries {
				if err := agree(w, id, at); err != nil {
					t.Errorf("%s: %s: %s at %s: %s", file, k.About, id, at, err)
				}
			}
		}
		for at, all := range map[time.Time]map[string][]string{noon: k.Want, noon.Add(time.Hour): k.Later} {
			for id, want := range all {
				got := slices.Sorted(maps.Keys(w.keys(id, at, w.plan.GetFeatures())))
				if slices.Sort(want); !slices.Equal(got, want) {
					t.Errorf("%s: %s: %s at %s: got %q, want %q", file, k.About, id, at, got, want)
				}
			}
		}
	}
}

func readWorld(t *testing.T, file string) (k keptWorld, w *world) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	w = emptyWorld()
	w.plan.Features = k.Plan
	read(t, file, k.Users, w.users)
	read(t, file, k.Roles, w.roles)
	read(t, file, k.Groups, w.groups)
	return k, w
}

// record is a record with an id.
type record interface {
	proto.Message
	GetId() string
}

func read[T record](t *testing.T, file string, texts []json.RawMessage, into map[string]T) {
	t.Helper()
	for _, text := range texts {
		var none T
		r := none.ProtoReflect().New().Interface().(T)
		if err := protojson.Unmarshal(text, r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		into[r.GetId()] = r
	}
}

// keep makes a world in which there is a mismatch small, writes it to the corpus and
// returns the file.
func keep(t *testing.T, w *world, d *mismatch) string {
	small := smallest(w, d.user, func(w *world) bool { return agree(w, d.user, d.at) != nil })
	k := keptWorld{About: d.Error(), Plan: small.plan.GetFeatures()}
	k.Users, k.Groups = texts(t, small.users), texts(t, small.groups)
	for id := range emptyWorld().roles {
		delete(small.roles, id)
	}
	k.Roles = texts(t, small.roles)
	data, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(corpus, fmt.Sprintf("found-%x.json", strings.Count(string(data), "\n")*1000+len(data)))
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func texts[T proto.Message](t *testing.T, records map[string]T) (all []json.RawMessage) {
	for _, id := range sorted(records) {
		text, err := protojson.Marshal(records[id])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}
