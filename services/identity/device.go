package identity

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"strings"

	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
	"latchkey.dev/services/internal/token"
)

const (
	devicePrefix = "lkd_"
	knownLife    = 180 * day
	// maxDevices is how many devices of one person are known. One more takes the place of
	// the oldest.
	maxDevices = 5
	// maxUserAgent is how much is kept of what a program calls itself.
	maxUserAgent = 200
)

// knownDevice returns the id of the device whose token it is, if it is known and the
// person's; else nothing.
func knownDevice(tx *store.Tx, user, text string) string {
	hash, err := token.Hash(text)
	if err != nil || !strings.HasPrefix(text, devicePrefix) {
		return ""
	}
	d, ok := devices.Get(tx, tokenID(hash[:]))
	if !ok || d.GetUserId() != user || !d.GetExpireTime().AsTime().After(tx.Now()) {
		return ""
	}
	return d.GetId()
}

// remember keeps a device of a person.
func (o *opening) remember(tx *store.Tx, user string) error {
	kept := 0
	for d := range devicesByUser.Scan(tx, devicesByUser.Range(user)) {
		if kept++; kept >= maxDevices {
			devices.Delete(tx, d.GetId())
		}
	}
	return devices.Put(tx, &identitystorepb.Device{
		Id: o.deviceID, UserId: user,
		CreateTime: timestamppb.New(tx.Now()), ExpireTime: timestamppb.New(tx.Now().Add(knownLife)),
	})
}

// place is where a sign-in comes from.
type place struct {
	address   string // IP address of the peer, or nothing
	userAgent string
}

// placeOf returns where a call comes from: for one that a page of our own made, where the
// browser is.
func (s *service) placeOf(ctx context.Context) place {
	if o, ok := s.placeOfPage(ctx); ok {
		return o
	}
	var o place
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		o.address = s.proxies.Address(p.Addr.String(), grpcmetadata.ValueFromIncomingContext(ctx, "x-forwarded-for"))
	}
	if agents := grpcmetadata.ValueFromIncomingContext(ctx, "user-agent"); len(agents) > 0 {
		o.userAgent = cutAgent(agents[0])
	}
	return o
}

// cutAgent returns what is kept of what a program calls itself.
func cutAgent(text string) string {
	agent := []rune(strings.ToValidUTF8(text, ""))
	return string(agent[:min(len(agent), maxUserAgent)])
}

// sources are how many counters all the places have together that guesses for one account
// come from, so that guessing fills no disk.
const sources = 16

// network returns the address of a place; of IPv6 it is the network that one customer has.
func (o place) network() string {
	if ip, err := netip.ParseAddr(o.address); err == nil && ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.String()
		}
	}
	return o.address
}

// sourceOf returns what the failures of a place are counted under.
func (s *service) sourceOf(o place) string {
	mac := hmac.New(sha256.New, s.salt)
	mac.Write([]byte(o.network()))
	return sourceName(int(mac.Sum(nil)[0] % sources))
}

// guesses are what the wrong passwords of a sign-in count for: for the device if the
// person knows it, else for the account and for the place that they come from.
//
// SECURITY: whoever guesses elsewhere does not keep a person out on a known device.
// After a few wrong ones from there it is as good as unknown.
func (s *service) guesses(tx *store.Tx, who person, email, deviceToken string, from place) (device string, counters []counter) {
	account := who.profile.GetId()
	if account == "" {
		account = s.unknownAccount(email)
	}
	if device = knownDevice(tx, account, deviceToken); device != "" {
		c := deviceFailures(device)
		if f, _ := failures.Get(tx, c.id); int(f.GetCount()) < c.most {
			return device, []counter{c}
		}
	}
	return "", []counter{sourceFailures(account, s.sourceOf(from)), passwordFailures(account)}
}

// purgeDevices forgets devices that nobody has renewed.
func purgeDevices(tx *store.Tx) int { return deleteDue(tx, devices, devicesByExpiry) }

// where is what a session tells of how it was opened.
func (o place) where(session *pb.Session, device string) {
	session.Address, session.UserAgent, session.DeviceName = o.address, o.userAgent, device
}
