package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// refusal is an error with a status of its own; any other error is a 500.
type refusal struct {
	status int
	text   string
}

func (e *refusal) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// readBody takes the whole body within the time and the size given. It never holds more than
// most bytes: whoever can connect could otherwise make the daemon run out of memory.
func readBody(w http.ResponseWriter, r *http.Request, most int64, within time.Duration) ([]byte, error) {
	// A deadline that cannot be set belongs to no real connection.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(within))
	if r.ContentLength > most {
		w.Header().Set("Connection", "close")
		return nil, tooLarge(most)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		// The deadline stays: net/http goes on to read what is left of the body.
		w.Header().Set("Connection", "close")
		return nil, readError(err, most, within)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

func readError(err error, most int64, within time.Duration) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge(most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "the call's arguments did not arrive within %s", within)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return refuse(http.StatusBadRequest, "the call's arguments were cut off: the connection broke before all of them had arrived")
	}
	return refuse(http.StatusBadRequest, "reading the call's arguments: %v", err)
}

func tooLarge(most int64) error {
	return refuse(http.StatusRequestEntityTooLarge, "the call's arguments are larger than the %d bytes that are allowed", most)
}

// decode reads one JSON object and nothing else into req. Fields that are not known are
// let through: newer engines add some.
func decode(path string, body []byte, req any) error {
	name := strings.TrimPrefix(path, "/")
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return refuse(http.StatusBadRequest, "%s came without its arguments: Docker loses them when it repeats a call over a broken connection, so try the command again", name)
	}
	if body[0] != '{' {
		// null would pass as a request whose every field is empty.
		return refuse(http.StatusBadRequest, "the arguments of %s are malformed: they must be a JSON object", name)
	}
	if err := json.Unmarshal(body, req); err != nil {
		return refuse(http.StatusBadRequest, "the arguments of %s are malformed: %v", name, err)
	}
	return nil
}
