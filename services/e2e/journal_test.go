package e2e

import (
	"maps"
	"slices"
	"testing"

	"latchkey.dev/services/internal/server"
	"latchkey.dev/services/internal/servertest"
	"latchkey.dev/services/internal/store/postgres"
)

// unshown are the collections that no journal shows, each with the reason.
var unshown = map[string]string{
	"identity/session_token":       "a hash of what proves a session",
	"identity/api_key_use":         "says no more than the key's own last use",
	"identity/seeding":             "work that a crash left unfinished",
	"identity/claim":               "a hash of what makes an owner",
	"identity/totp":                "a secret that proves who somebody is",
	"identity/passkey_key":         "what a passkey is verified by",
	"identity/recovery_codes":      "hashes of what proves who somebody is",
	"identity/spent_challenge":     "what must not be answered twice",
	"identity/failures":            "counts of what failed, for the next attempt",
	"identity/session_hours":       "what scheduling said of when its session may be used",
	"identity/reopening":           "a hash of what brings a brand back",
	"identity/erasure":             "work that an erasure has left to do",
	"identity/forgetting":          "work that an erasure has left to do",
	"identity/imported_kind":       "how many hashes of a kind are left",
	"identity/password_reset":      "a hash of what replaces a password",
	"identity/mail":                "what is to be sent, of events that the journal shows",
	"identity/mail_count":          "how many messages somebody got lately",
	"identity/salt":                "random bytes",
	"identity/signing_key":         "a private key",
	"identity/session_refresh":     "a hash of what renews a session",
	"identity/session_use":         "when a session was used last, which the session shows",
	"identity/place":               "where a user signs in from, which sessions show",
	"identity/device":              "a hash of what a known device proves itself by",
	"identity/oauth_secret":        "hashes of what proves a client",
	"identity/outside_secret":      "what proves the suite to a provider, encrypted",
	"identity/outside_invitation":  "whom an event says that somebody has invited",
	"identity/oauth_session":       "what a session was opened for",
	"identity/oauth_refresh":       "a hash of what renews a session",
	"identity/oauth_code":          "a hash of what opens a session",
	"identity/oauth_pushed":        "what a client has asked for, until a person answers",
	"identity/oauth_consent":       "what somebody let a client do",
	"identity/oauth_revocation":    "what other processes are told of ended sessions",
	"invoicing/counter":            "the last number given out",
	"permissions/brand_member":     "which organizations a brand has, which identity's journal shows",
	"permissions/role_edit":        "work that a crash left unfinished",
	"permissions/role_hold":        "work that a crash left unfinished",
	"scheduling/cancelled_request": "a note that an event was handled",
	"servicerequest/orphan":        "files that wait to be removed",
}

// TestJournalsShowEveryCollection holds what the journals show against what there is: each
// collection is shown by the rule of a method, or on the list.
func TestJournalsShowEveryCollection(t *testing.T) {
	var parts []server.Part
	for _, name := range names {
		parts = append(parts, services[name])
	}
	p, err := server.Start(t.Context(), servertest.Config(t), parts, server.Options{Engines: server.Engines{"postgres": postgres.Open}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	left := maps.Clone(unshown)
	for _, name := range names {
		src := p.Journals()[name]
		shown := src.Collections()
		for _, collection := range services[name].Schema.Collections() {
			_, ok := shown[collection]
			if _, hidden := unshown[name+"/"+collection]; ok == hidden {
				t.Errorf("%s/%s: shown is %v, and on the list of those that are not is %v", name, collection, ok, hidden)
			}
			delete(left, name+"/"+collection)
		}
		for collection, get := range shown {
			if !p.Rules().Has(get) {
				t.Errorf("%s/%s is shown to those who may call %s, which is no method", name, collection, get)
			}
		}
	}
	if len(left) > 0 {
		t.Errorf("the list names what there is not: %v", slices.Sorted(maps.Keys(left)))
	}
}
