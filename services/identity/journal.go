package identity

import (
	"context"

	"google.golang.org/protobuf/proto"

	identitystorepb "latchkey.dev/gen/go/latchkey/identity/store/v1"
	pb "latchkey.dev/gen/go/latchkey/identity/v1"

	"latchkey.dev/services/internal/authz"
	"latchkey.dev/services/internal/journal"
	"latchkey.dev/services/internal/store"
)

// showJournal says what the journal shows: of the one for all organizations, to each caller
// what is of his own.
//
// SECURITY: the profile and the credential of a person belong to no organization. That
// they were made when an organization added her, or that another one did before, must not
// be seen, so they are shown to herself alone.
func showJournal(j *journal.Source) {
	j.Tenant = directory
	journal.Show(j, brands, pb.BrandService_GetBrand_FullMethodName, ofBrandOf((*pb.Brand).GetId))
	journal.Show(j, accountingClasses, pb.AccountingClassService_GetAccountingClass_FullMethodName, ofBrandOf((*pb.AccountingClass).GetBrandId))
	journal.Show(j, automations, pb.AutomationService_GetAutomations_FullMethodName, ofBrandOf((*pb.Automation).GetBrandId))
	journal.Show(j, organizations, pb.OrganizationService_GetOrganization_FullMethodName, ofOrganization((*pb.Organization).GetId, nil))
	journal.Show(j, customFields, pb.CustomFieldService_GetCustomField_FullMethodName, ofOrganization((*pb.CustomField).GetOrganizationId, nil))
	journal.Show(j, labels, pb.LabelService_GetLabel_FullMethodName, ofOrganization((*pb.Label).GetOrganizationId, nil))
	journal.Show(j, notificationChoices, pb.NotificationService_GetNotificationChoices_FullMethodName, ofCaller((*pb.NotificationChoices).GetId))
	journal.Show(j, notificationDefaults, pb.NotificationService_GetNotificationDefaults_FullMethodName,
		ofOrganization((*pb.NotificationDefaults).GetId, nil))
	journal.Show(j, billingAccounts, pb.BillingAccountService_GetBillingAccount_FullMethodName, ofOrganization((*pb.BillingAccount).GetId, nil))
	journal.Show(j, users, pb.UserService_GetUser_FullMethodName, ofOrganization((*pb.User).GetOrganizationId, nil))
	journal.Show(j, apiKeys, pb.ApiKeyService_ListApiKeys_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.ApiKey], error) {
		c := authz.Caller(ctx)
		return func(_ *store.Tx, k *pb.ApiKey) bool {
			return k.GetOrganizationId() == c.Organization && (k.GetBrandId() == "" || c.Has("Branding:ApiKeys"))
		}, nil
	})
	journal.Show(j, clients, pb.OauthClientService_GetOauthClient_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.OauthClient], error) {
		return func(tx *store.Tx, c *pb.OauthClient) bool {
			return looksAfter(ctx, tx, c, "ControlPanel:ApiKeys", "Branding:ApiKeys")
		}, nil
	})
	journal.Show(j, calendars, pb.CalendarService_GetCalendarConnection_FullMethodName, ofCaller((*pb.CalendarConnection).GetUserId))
	journal.Show(j, sessions, pb.SessionService_ListMySessions_FullMethodName,
		ofOrganization((*pb.Session).GetOrganizationId, func(s *pb.Session, caller string) bool { return s.GetUserId() == caller }))
	journal.Show(j, impersonations, pb.ImpersonationService_ListMyImpersonations_FullMethodName,
		ofOrganization((*pb.Impersonation).GetOrganizationId, func(i *pb.Impersonation, caller string) bool {
			return i.GetUserId() == caller || i.GetActorId() == caller
		}))
	journal.Show(j, factorRemovals, pb.FactorService_GetFactors_FullMethodName,
		ofOrganization((*pb.FactorRemoval).GetOrganizationId, func(r *pb.FactorRemoval, caller string) bool { return r.GetUserId() == caller }))
	journal.Show(j, profiles, pb.ProfileService_GetProfile_FullMethodName, ofCaller((*pb.Profile).GetId))
	journal.Show(j, passkeys, pb.FactorService_ListPasskeys_FullMethodName, ofCaller((*pb.Passkey).GetUserId))
	journal.Show(j, providers, pb.OutsideProviderService_GetOutsideProvider_FullMethodName, func(ctx context.Context) (journal.Sight[*pb.OutsideProvider], error) {
		c := authz.Caller(ctx)
		return func(tx *store.Tx, p *pb.OutsideProvider) bool { return isFor(tx, p, c.Organization) }, nil
	})
	journal.Show(j, links, pb.OutsideLinkService_ListMyOutsideLinks_FullMethodName,
		ofOrganization((*pb.OutsideLink).GetOrganizationId, func(l *pb.OutsideLink, caller string) bool { return l.GetUserId() == caller }))
	showEvent(j, (*pb.OutsideLinked).GetOrganizationId)
	showEvent(j, (*pb.OutsideUnlinked).GetOrganizationId)
	showEvent(j, (*pb.OutsideInvited).GetOrganizationId)
	showEvent(j, (*pb.SignInFailed).GetOrganizationId)
	showEvent(j, (*pb.RefreshTokenReused).GetOrganizationId)
	showEvent(j, (*pb.PasskeyCloned).GetOrganizationId)
	showEvent(j, (*pb.PasswordResetIssued).GetOrganizationId)
	showEvent(j, (*pb.PasswordWasReset).GetOrganizationId)
	showEvent(j, (*pb.UserUnlocked).GetOrganizationId)
	showEvent(j, (*pb.UserFactorRemoved).GetOrganizationId)
	showEvent(j, (*pb.FactorAdded).GetOrganizationId)
	showEvent(j, (*pb.FactorRemoved).GetOrganizationId)
	showEvent(j, (*pb.PasswordChanged).GetOrganizationId)
	showEvent(j, (*pb.NewDeviceUsed).GetOrganizationId)
	showEvent(j, (*pb.UserAdded).GetOrganizationId)
	showEvent(j, (*pb.ImpersonationBegan).GetOrganizationId)
	journal.ShowSecret(j, credentials, pb.ProfileService_GetProfile_FullMethodName, ofCaller((*identitystorepb.Credential).GetUserId))
}

// showEvent shows events to those who manage the users of their organization.
func showEvent[T proto.Message](j *journal.Source, of func(T) string) {
	journal.ShowEvent(j, pb.UserService_ListUsers_FullMethodName, func(ctx context.Context, e T) bool {
		return of(e) == authz.Caller(ctx).Organization
	})
}

// ofBrandOf is the sight of records of the brand of the caller's organization.
func ofBrandOf[T proto.Message](of func(T) string) func(context.Context) (journal.Sight[T], error) {
	return func(ctx context.Context) (journal.Sight[T], error) {
		organization := authz.Caller(ctx).Organization
		return func(tx *store.Tx, v T) bool {
			own, err := brandOf(tx, organization)
			return err == nil && own.GetId() == of(v)
		}, nil
	}
}

// ofOrganization is the sight of records of the caller's organization. Where mine tells
// which are the caller's, others are for those who manage its users.
func ofOrganization[T proto.Message](of func(T) string, mine func(v T, caller string) bool) func(context.Context) (journal.Sight[T], error) {
	return func(ctx context.Context) (journal.Sight[T], error) {
		c := authz.Caller(ctx)
		all := mine == nil || c.Has("Organization: Users")
		return func(_ *store.Tx, v T) bool { return of(v) == c.Organization && (all || mine(v, c.ID)) }, nil
	}
}

// ofCaller is the sight of records of the caller himself.
func ofCaller[T proto.Message](of func(T) string) func(context.Context) (journal.Sight[T], error) {
	return func(ctx context.Context) (journal.Sight[T], error) {
		c := authz.Caller(ctx)
		return func(_ *store.Tx, v T) bool { return c.InPerson() && of(v) == c.ID }, nil
	}
}
