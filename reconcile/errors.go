package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// split takes a plane's error apart into one error for each failure, and reports
// whether all of them concern single objects (true for nil).
//
// state.Scope looks into joined errors only where they are on top, so what a plane
// joined and then wrapped must be taken apart here: otherwise the failure of one
// object would hide those of others.
func split(err error) (errs []error, objects bool) {
	errs = leaves(err)
	return errs, !slices.ContainsFunc(errs, func(err error) bool { return !isObject(err) })
}

func leaves(err error) []error {
	if err == nil {
		return nil
	}
	var below []error
	switch e := err.(type) {
	case *state.ObjectError:
		return []error{err}
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			below = append(below, leaves(err)...)
		}
		if len(below) > 0 {
			return below
		}
	case interface{ Unwrap() error }:
		below = leaves(e.Unwrap())
		if len(below) > 1 {
			return below
		}
	}
	return []error{err} // with the words that were put around a single failure
}

// isObject reports whether err, one of leaves, concerns a single object.
func isObject(err error) bool {
	_, ok := errors.AsType[*state.ObjectError](err)
	return ok
}

// maxSummary is how many failures a summary names.
const maxSummary = 5

// summary returns the failures in one line, the same for the same failures in
// whatever order; "" for nil.
func summary(err error) string {
	var texts []string
	for _, err := range leaves(err) {
		texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if more := len(texts) - maxSummary; more > 0 {
		texts = append(texts[:maxSummary], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}
