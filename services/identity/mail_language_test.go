package identity_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "latchkey.dev/gen/go/latchkey/identity/v1"
)

// reads sets the language of a person's own profile.
func (c *caller) reads(tag string) error {
	_, err := c.profiles().UpdateProfile(c.ctx(), &pb.UpdateProfileRequest{
		Profile: &pb.Profile{Language: tag}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"language"}},
	})
	return err
}

// A person is written to in her language, or else in that of her organization, or else in
// English: also where what is told is of no organization.
func TestMailInTheLanguageOfThePerson(t *testing.T) {
	p := newPost(t)
	owner := p.caller
	ada, bob, eve := p.hire("ada", "US"), p.hire("bob", "US"), p.hire("eve", "US")
	mustNot(t, ada.reads("fr-CA"))
	mustNot(t, bob.reads("it"))
	for _, tag := range []string{"french", "fr_CA", "x"} {
		checkField(t, tag, ada.reads(tag), "profile.language")
	}
	profile, err := ada.profiles().GetProfile(ada.ctx(), &pb.GetProfileRequest{})
	mustNot(t, err)
	if got := profile.GetProfile().GetLanguage(); got != "fr-CA" {
		t.Errorf("got the language %q", got)
	}
	p.ask(bob.email)
	p.tells(bob.email, "A code for a new password", "Hello bob,\n")
	_, err = pb.NewOrganizationServiceClient(p.conn).UpdateOrganization(owner.ctx(), &pb.UpdateOrganizationRequest{
		Organization: &pb.Organization{Id: owner.user.GetOrganizationId(), Language: "de-AT", TimeZone: "Europe/Vienna"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"language", "time_zone"}},
	})
	mustNot(t, err)
	owner.issue(eve)
	p.tells(eve.email, "Ein Administrator kann Ihr Passwort festlegen", "Guten Tag eve,\n\nein Administrator von Harbour Homes hat am ", " Uhr (CE", "fragen Sie dort nach")
	owner.issue(ada)
	p.tells(ada.email, "Un administrateur peut définir votre mot de passe", "Bonjour ada,\n\nUn administrateur de l’organisation Harbour Homes a obtenu le ", "\u00a0h\u00a0")
	p.ask(ada.email)
	p.tells(ada.email, "Un code pour un nouveau mot de passe", "Voici ce code\u00a0:\n\n    ", "là où vous vous connectez", signInPage)
	p.ask(eve.email)
	p.tells(eve.email, "Ein Code für ein neues Passwort", "Er gilt einmal, bis zum ", " Uhr (UTC)")
	code := codeIn(t, p.server.Wait(1, "Ein Code für ein neues Passwort")[0])
	mustNot(t, eve.reset(code, resetTo))
	mustNot(t, ada.reads("es"))
	p.ask(ada.email)
	p.tells(ada.email, "Un código para una contraseña nueva", "Hola, ada:\n", "hasta el ")
	for _, m := range p.server.Taken() {
		want := map[byte]string{'A': "en", 'Y': "en", 'E': "de", 'U': ""}[m.Subject[0]]
		if got := m.Header.Get("Content-Language"); want != "" && got != want || got == "" {
			t.Errorf("%s: got the language %q, want %q", m.Subject, got, want)
		}
		if strings.ContainsAny(m.Subject+m.Text, "{}") {
			t.Errorf("something is not filled in:\n%s", m.Text)
		}
	}
}
