// Package authenticator is a browser with a software authenticator, for tests: it makes
// passkeys and signs with them as Web Authentication Level 3 has it, from what a server
// says in JSON. It is written from the specification, apart from what the services check
// answers with, so that both would have to be wrong in the same way. What a test sets
// of a Device beyond its origin makes it answer what no honest one would.
package authenticator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Algorithms of keys (RFC 9053 2).
const (
	EdDSA = -8
	ES256 = -7
)

// Flags of what an authenticator tells (Web Authentication Level 3, 6.1).
const (
	UserPresent    = 0x01
	UserVerified   = 0x04
	BackupEligible = 0x08
	BackedUp       = 0x10
	attested       = 0x40
)

// Device is a browser on one page, with what keeps the passkeys of its person.
type Device struct {
	// Origin is that of the page.
	Origin string
	// Algorithm is that of the keys which it makes.
	Algorithm int
	// Flags are what it tells with each answer.
	Flags byte
	// Counts makes it count its signatures. A passkey that is on several devices does not.
	Counts bool

	// Domain, Challenge, UserHandle and CrossOrigin replace what an honest device would
	// answer with.
	Domain, Challenge, UserHandle string
	CrossOrigin                   bool

	passkeys []*Passkey
}

// Passkey is one that a device keeps.
type Passkey struct {
	ID     []byte
	Count  uint32 // of its signatures
	domain string
	handle []byte
	key    crypto.Signer
}

// New returns a device on a page that makes sure of its person.
func New(origin string) *Device {
	return &Device{Origin: origin, Algorithm: ES256, Flags: UserPresent | UserVerified, Counts: true}
}

// Copy returns a device with the same passkeys, as a thief would have them.
func (d *Device) Copy() *Device {
	next := *d
	next.passkeys = nil
	for _, p := range d.passkeys {
		q := *p
		next.passkeys = append(next.passkeys, &q)
	}
	return &next
}

// Last returns the passkey that was made last.
func (d *Device) Last() *Passkey { return d.passkeys[len(d.passkeys)-1] }

type descriptor struct {
	ID string `json:"id"`
}

type creationOptions struct {
	RP struct {
		ID string `json:"id"`
	} `json:"rp"`
	User struct {
		ID string `json:"id"`
	} `json:"user"`
	Challenge string `json:"challenge"`
	Params    []struct {
		Alg int `json:"alg"`
	} `json:"pubKeyCredParams"`
	Exclude []descriptor `json:"excludeCredentials"`
}

// Create makes a passkey by options in JSON, and returns the answer in JSON.
func (d *Device) Create(options string) (string, error) {
	var o creationOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("read options: %w", err)
	}
	for _, known := range o.Exclude {
		if d.passkey(known.ID) != nil {
			return "", errors.New("this device has a passkey of this person already")
		}
	}
	wanted := false
	for _, p := range o.Params {
		wanted = wanted || p.Alg == d.Algorithm
	}
	if !wanted {
		return "", fmt.Errorf("the server takes no keys of algorithm %d", d.Algorithm)
	}
	handle, err := base64.RawURLEncoding.DecodeString(o.User.ID)
	if err != nil {
		return "", fmt.Errorf("read user handle: %w", err)
	}
	p := &Passkey{ID: make([]byte, 32), domain: o.RP.ID, handle: handle}
	rand.Read(p.ID)
	public, err := p.makeKey(d.Algorithm)
	if err != nil {
		return "", err
	}
	d.passkeys = append(d.passkeys, p)
	data := d.authenticatorData(p, attested)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(p.ID)))
	data = append(append(data, p.ID...), public...)
	object := cborMap(text("fmt"), text("none"), text("attStmt"), cborMap(), text("authData"), bytes(data))
	return d.answer(p, map[string]any{
		"clientDataJSON":    encode(d.clientData("webauthn.create", o.Challenge)),
		"attestationObject": encode(object),
		"transports":        []string{"internal", "hybrid"},
	}, map[string]any{"credProps": map[string]any{"rk": true}})
}

// Get signs by options in JSON with a passkey that they allow, and returns the answer in
// JSON.
func (d *Device) Get(options string) (string, error) {
	var o struct {
		RPID      string       `json:"rpId"`
		Challenge string       `json:"challenge"`
		Allow     []descriptor `json:"allowCredentials"`
	}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return "", fmt.Errorf("read options: %w", err)
	}
	i := slices.IndexFunc(d.passkeys, func(p *Passkey) bool {
		allowed := slices.ContainsFunc(o.Allow, func(a descriptor) bool { return a.ID == encode(p.ID) })
		return p.domain == o.RPID && (len(o.Allow) == 0 || allowed)
	})
	if i < 0 {
		return "", errors.New("this device has no such passkey")
	}
	p := d.passkeys[i]
	if d.Counts {
		p.Count++
	}
	client, data := d.clientData("webauthn.get", o.Challenge), d.authenticatorData(p, 0)
	hash := sha256.Sum256(client)
	signature, err := p.sign(append(slices.Clone(data), hash[:]...))
	if err != nil {
		return "", err
	}
	handle := p.handle
	if d.UserHandle != "" {
		handle = []byte(d.UserHandle)
	}
	return d.answer(p, map[string]any{
		"clientDataJSON": encode(client), "authenticatorData": encode(data), "signature": encode(signature), "userHandle": encode(handle),
	}, map[string]any{})
}

func (d *Device) passkey(id string) *Passkey {
	for _, p := range d.passkeys {
		if encode(p.ID) == id {
			return p
		}
	}
	return nil
}

func (d *Device) answer(p *Passkey, response, extensions map[string]any) (string, error) {
	text, err := json.Marshal(map[string]any{
		"id": encode(p.ID), "rawId": encode(p.ID), "type": "public-key", "authenticatorAttachment": "platform",
		"response": response, "clientExtensionResults": extensions,
	})
	return string(text), err
}

// clientData is what the browser adds, and the authenticator signs a hash of.
func (d *Device) clientData(kind, challenge string) []byte {
	if d.Challenge != "" {
		challenge = d.Challenge
	}
	data := map[string]any{"type": kind, "challenge": challenge, "origin": d.Origin, "crossOrigin": d.CrossOrigin}
	if d.CrossOrigin {
		data["topOrigin"] = "https://frames.example"
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic("authenticator: client data: " + err.Error())
	}
	return text
}

func (d *Device) authenticatorData(p *Passkey, further byte) []byte {
	domain := p.domain
	if d.Domain != "" {
		domain = d.Domain
	}
	hash := sha256.Sum256([]byte(domain))
	return binary.BigEndian.AppendUint32(append(hash[:], d.Flags|further), p.Count)
}

// makeKey makes the key pair, and returns the public key as a COSE_Key.
func (p *Passkey) makeKey(algorithm int) ([]byte, error) {
	if algorithm == EdDSA {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		p.key = private
		return cborMap(number(1), number(1), number(3), number(EdDSA), number(-1), number(6), number(-2), bytes(public)), err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p.key = key
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, err
	}
	return cborMap(number(1), number(2), number(3), number(ES256), number(-1), number(1),
		number(-2), bytes(point[1:33]), number(-3), bytes(point[33:])), nil
}

func (p *Passkey) sign(data []byte) ([]byte, error) {
	if key, ok := p.key.(ed25519.PrivateKey); ok {
		return ed25519.Sign(key, data), nil
	}
	hash := sha256.Sum256(data)
	return p.key.Sign(rand.Reader, hash[:], crypto.SHA256)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
