package plugin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// contentType is what dockerd asks for in its Accept header.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// replyTime is how long a peer may take to accept an answer.
const replyTime = 5 * time.Second

// failure is the body of an answer that is not 200. dockerd's client reads Err for both
// APIs; the IPAM API's own types call it Error.
type failure struct{ Err, Error string }

// status gives the HTTP status for what a call ended with. It is never 404 for a
// route that exists, see the package documentation.
func status(err error) int {
	var r *refusal
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &r):
		return r.status
	}
	return http.StatusInternalServerError
}

// writeReply sends the body of a success, or the error.
func writeReply(w http.ResponseWriter, body []byte, err error) {
	if err != nil {
		text := oneLine(err)
		body, _ = json.Marshal(failure{Err: text, Error: text}) // two strings always encode
	}
	w.Header().Set("Content-Type", contentType)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(replyTime))
	w.WriteHeader(status(err))
	// If the peer is gone there is nobody left to tell.
	_ = effect.Do("reply", func() error {
		_, err := w.Write(body)
		return err
	})
}

// oneLine joins the lines that errors.Join makes: docker prints the text into the
// middle of a sentence of its own.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}
