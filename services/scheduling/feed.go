package scheduling

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	ics "github.com/arran4/golang-ical"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	faultpb "latchkey.dev/gen/go/latchkey/fault/v1"
	pb "latchkey.dev/gen/go/latchkey/scheduling/v1"

	"latchkey.dev/services/internal/fault"
	"latchkey.dev/services/internal/server"
)

const (
	// feedPath is where the feed is. The token is in the query, which no log has.
	feedPath = "/calendar.ics"
	// maxFed is how many appointments a feed has at most.
	maxFed = 2000
	// feedPrefix is what the token of a feed begins with.
	//
	// SECURITY: no other credential is taken from an address, so that none comes to stand in
	// one.
	feedPrefix = "lkf_"
	// refresh is how often a calendar program is asked to read the feed (RFC 7986 5.7).
	refresh = "PT15M"
	// comeAgain is after how many seconds a program is to try again if nobody knows better.
	comeAgain = 60
)

const noFeed = "there is no such calendar, or not any more: connect it again"

// feed shows a person's own schedule to the calendar program of that person (RFC 5545). It
// calls the API as the person does who is signed in, with the token that the program sends,
// and so has nothing that the API would not show.
type feed struct {
	schedule pb.AppointmentServiceClient // of this process, as anybody outside has it
	now      func() time.Time
	log      *slog.Logger
}

func serveFeed(env *server.Env) {
	if env.HTTP == nil {
		return
	}
	f := &feed{schedule: pb.NewAppointmentServiceClient(env.Public), now: env.Now, log: env.Log}
	env.HTTP.Handle("GET "+feedPath, f.serve)
}

func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	if !strings.HasPrefix(token, feedPrefix) || strings.ContainsFunc(token, unicode.IsControl) {
		http.Error(w, noFeed, http.StatusNotFound)
		return
	}
	list, err := f.read(r.Context(), token)
	if err != nil {
		code, words, pause := f.refusal(r.Context(), err)
		if pause > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(pause))
		}
		http.Error(w, words, code)
		return
	}
	text := calendar(list)
	w.Header().Set("Content-Type", "text/calendar; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="calendar.ics"`)
	// The program may keep what it has, and asks each time whether that is still so.
	w.Header().Set("Cache-Control", "private, no-cache")
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(text)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

// refusal says an error in the words of HTTP, and after how many seconds to come again, 0 if
// that is no use. That a token is unknown and that its feed has ended is the same answer.
func (f *feed) refusal(ctx context.Context, err error) (code int, words string, pause int) {
	st := status.Convert(err)
	switch st.Code() {
	case codes.Unauthenticated:
		return http.StatusNotFound, noFeed, 0
	case codes.PermissionDenied, codes.FailedPrecondition:
		if from, outside := opensAt(st); outside {
			return http.StatusServiceUnavailable, st.Message(), max(comeAgain, int(from.Sub(f.now())/time.Second))
		}
		return http.StatusForbidden, st.Message(), 0
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests, st.Message(), comeAgain
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return http.StatusServiceUnavailable, "this does not work at the moment: try again", comeAgain
	}
	f.log.ErrorContext(ctx, "a calendar's feed is broken", "error", err)
	return http.StatusInternalServerError, "the suite is at fault; its log says more", 0
}

// opensAt tells whether somebody was refused for the hours of the app, and when they begin,
// if that is known.
func opensAt(st *status.Status) (from time.Time, outside bool) {
	for _, d := range st.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if ok && info.GetReason() == fault.ReasonName(faultpb.Reason_REASON_OUTSIDE_WORK_HOURS) {
			from, _ = time.Parse(time.RFC3339, info.GetMetadata()["from"])
			return from, true
		}
	}
	return time.Time{}, false
}

// read returns what is planned for whoever has the token.
func (f *feed) read(ctx context.Context, token string) (list []*pb.Appointment, err error) {
	ctx = metadata.NewOutgoingContext(ctx, metadata.Pairs("authorization", "Bearer "+token))
	req := &pb.ListMyScheduleRequest{PageSize: 500}
	for {
		resp, err := f.schedule.ListMySchedule(ctx, req)
		if err != nil {
			return nil, err
		}
		list = append(list, resp.GetAppointments()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" || len(list) >= maxFed {
			return list[:min(len(list), maxFed)], nil
		}
	}
}

// calendar writes appointments as events. The same appointments are the same text, so that
// DTSTAMP is when each last changed, which it is in a calendar without METHOD (RFC 5545
// 3.8.7.2).
//
// SECURITY: a feed goes to who keeps the person's calendar. It has what has to stand in a
// calendar, and not the notes, nor who is visited.
func calendar(list []*pb.Appointment) []byte {
	c := ics.NewCalendarFor("Latchkey")
	c.SetProductId("-//Latchkey//scheduling//EN")
	c.SetXWRCalName("Latchkey")
	c.SetRefreshInterval(refresh)
	c.SetXPublishedTTL(refresh)
	for _, a := range list {
		e := c.AddEvent(a.GetId())
		e.SetDtStampTime(a.GetUpdateTime().AsTime())
		e.SetStartAt(a.GetStartTime().AsTime())
		e.SetEndAt(a.GetEndTime().AsTime())
		e.SetLastModifiedAt(a.GetUpdateTime().AsTime())
		e.SetSummary(printable(a.GetTitle()))
		e.SetStatus(ics.ObjectStatusConfirmed)
		e.SetClass(ics.ClassificationPrivate)
	}
	return []byte(c.Serialize(ics.WithNewLineWindows))
}

// printable returns a text in one line.
//
// SECURITY: whoever writes a title must not write further lines of the calendar.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}
