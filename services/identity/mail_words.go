package identity

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/store"
)

// phrases are the texts of messages in a language, each under its name. What stands in braces
// is filled in; every language has the same names, and in each text the same braces.
type phrases map[string]string

// tongue is a language that messages are written in.
type tongue struct {
	tag language.Tag
	phrases
}

// tongues are those that there are. English comes first, and is for whoever asks for none.
var tongues = []tongue{
	{language.English, english},
	{language.German, german},
	{language.French, french},
	{language.Spanish, spanish},
}

var tongueMatcher = func() language.Matcher {
	var tags []language.Tag
	for _, t := range tongues {
		tags = append(tags, t.tag)
	}
	return language.NewMatcher(tags)
}()

// tongueOf returns the language that is written for who reads that of a tag of BCP 47, or
// false if there is none.
func tongueOf(tag string) (tongue, bool) {
	asked, err := language.Parse(tag)
	if tag == "" || err != nil {
		return tongue{}, false
	}
	_, i, confidence := tongueMatcher.Match(asked)
	return tongues[i], confidence > language.No
}

// tongueFor returns the language in which a person is written to: her own, else that of the
// organization that it is about, else that of the first in which she is a member.
func tongueFor(tx *store.Tx, p *pb.Profile, organization string) tongue {
	if t, ok := tongueOf(p.GetLanguage()); ok {
		return t
	}
	o, _ := organizations.Get(tx, organization)
	if t, ok := tongueOf(o.GetLanguage()); ok {
		return t
	}
	for u := range usersByPerson.Scan(tx, usersByPerson.Range(p.GetId())) {
		o, _ := organizations.Get(tx, u.GetOrganizationId())
		if t, ok := tongueOf(o.GetLanguage()); ok {
			return t
		}
	}
	return tongues[0]
}

// text returns the text of a name, in which each of the names that follow is filled in with
// what follows it.
func (t tongue) text(name string, filled ...string) string {
	text, ok := t.phrases[name]
	if !ok {
		panic("identity: there is no text " + name + " in " + t.tag.String())
	}
	var pairs []string
	for i := 0; i+1 < len(filled); i += 2 {
		pairs = append(pairs, "{"+filled[i]+"}", filled[i+1])
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// times tells how often something was, in a row.
func (t tongue) times(n int32) string {
	if n == 1 {
		return t.text("once")
	}
	return t.text("times", "n", strconv.Itoa(int(n)))
}

// date tells a time. A language may have its own way for the first day of a month, and for
// one o'clock.
func (t tongue) date(at time.Time) string {
	name := "when"
	if at.Day() == 1 {
		name += " first"
	}
	if at.Hour() == 1 {
		name += " at one"
	}
	month := strings.Fields(t.phrases["months"])[at.Month()-1]
	return t.text(name, "day", strconv.Itoa(at.Day()), "month", month, "year", strconv.Itoa(at.Year()),
		"hour", fmt.Sprintf("%02d", at.Hour()), "minute", fmt.Sprintf("%02d", at.Minute()), "zone", at.Format("MST"))
}
