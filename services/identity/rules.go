package identity

import (
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // an image from scratch has no zone files

	"golang.org/x/text/currency"
	"golang.org/x/text/language"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/fault"
)

// emailForm is the address that HTML forms accept, with at least two labels after
// the @. SECURITY: ASCII only, so that no two addresses look the same.
var emailForm = regexp.MustCompile(
	`^[a-z0-9.!#$%&'*+/=?^_{|}~` + "`" + `-]{1,64}@[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$`)

// normalEmail returns the address in the one form in which it is kept, and whether
// it is one.
func normalEmail(text string) (string, bool) {
	email := strings.ToLower(strings.TrimSpace(text))
	return email, len(email) <= 254 && emailForm.MatchString(email)
}

// newEmail is normalEmail for an address that is to be kept.
func newEmail(field, text string) (string, error) {
	email, ok := normalEmail(text)
	if !ok {
		return "", fault.Invalid(field, "must be an address of the form name@host.domain in ASCII, at most 254 characters")
	}
	return email, nil
}

// checkOrganization says which field of an organization will not do. Path is where
// its fields stand in the request, "organization." or "".
func checkOrganization(o *pb.Organization, path string) error {
	switch {
	case strings.TrimSpace(o.GetName()) == "":
		return fault.Invalid(path+"name", "must not be blank")
	case !isZone(o.GetTimeZone()):
		return fault.Invalid(path+"time_zone", `must be a zone of the IANA database, for example "Europe/Berlin"`)
	case !isCurrency(o.GetCurrencyCode()):
		return fault.Invalid(path+"currency_code", `must be a currency of ISO 4217, for example "EUR"`)
	}
	if err := checkLanguage(path+"language", o.GetLanguage()); err != nil {
		return err
	}
	email, err := emailOrNone(path+"email", o.GetEmail())
	o.Email = email
	return err
}

// emailOrNone is newEmail for an address that can be left out.
func emailOrNone(field, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	return newEmail(field, text)
}

// checkLanguage accepts canonical tags, and none.
func checkLanguage(field, tag string) error {
	parsed, err := language.Parse(tag)
	if tag != "" && (err != nil || parsed.String() != tag) {
		return fault.Invalid(field, `must be a tag of BCP 47 in its canonical form, for example "de-AT"`)
	}
	return nil
}

// isZone accepts the names of the database, and not what Go adds to them.
func isZone(name string) bool {
	if name == "" || name == "Local" {
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}

// isCurrency accepts the codes of currencies, and not XXX, which stands for none,
// nor XTS, which is for tests.
func isCurrency(code string) bool {
	unit, err := currency.ParseISO(code)
	return err == nil && unit.String() == code && code != "XXX" && code != "XTS"
}

// checkName says that a name must not be blank. How long it may be the API says.
func checkName(field, name string) error {
	if strings.TrimSpace(name) == "" {
		return fault.Invalid(field, "must not be blank")
	}
	return nil
}
