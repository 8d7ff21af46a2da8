//go:build kernel && faults

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// walkFiles walks a first start, and that of a program which finds a file of an earlier format.
func (w *walker) walkFiles(story []step) {
	w.from, w.every = 1, 1 // they are few
	w.plan(0, "")
	w.start()
	blank := w.moment()
	for _, s := range story {
		w.call(s)
		if s.busiest {
			break
		}
	}
	busy := w.moment()
	w.walkFile("first start", nil, blank)
	w.walkFile("upgrade", w.earlierFormat(busy), busy)
	w.Logf("walked %d points with a kill and %d with a failure", w.points[effect.KillAfter]+w.points[effect.KillBefore], w.points[effect.Fail])
}

// walkFile kills a daemon that makes its state file, or brings it to the present format, or has that fail, at each effect. The
// next one, or the same, must have the state of the moment. No file stands for a first start.
func (w *walker) walkFile(what string, file []byte, want moment) {
	w.Helper()
	path := w.host.path("state.db")
	act := func(point int, fault effect.Fault) string {
		w.rewind(want)
		w.stop()
		w.must(errors.Join(remove(path), remove(path+".new")))
		if file != nil {
			w.must(os.WriteFile(path, file, 0o600))
		}
		w.plan(point, fault)
		w.host.launch(w.backend)
		hit := w.await(point, fault)
		switch {
		case strings.HasPrefix(hit, "store."):
			return hit
		case point == 1:
			w.Fatalf("%s: the first effect is %q, and not of the file", what, hit)
		}
		w.stop()
		return ""
	}
	for v := range w.visits(act, effect.KillBefore, effect.KillAfter, effect.Fail) {
		where := fmt.Sprintf("%s, %v", what, v)
		if w.host.daemon == nil {
			w.start()
		}
		if now := lessHistory(w.same(where)); now != want.less() {
			w.Errorf("%s: the state is not as it should be: %s", where, cmp.Diff(want.less(), now))
		}
		if _, err := os.Stat(path + ".new"); err == nil {
			w.Errorf("%s: an unfinished file is left", where)
		}
	}
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// earlierFormat returns the file of a moment as a program of the format before would have left it.
func (w *walker) earlierFormat(m moment) []byte {
	w.Helper()
	path := w.host.path("earlier.db")
	w.must(os.WriteFile(path, m.file, 0o600))
	db, err := bolt.Open(path, 0o600, nil)
	w.must(err)
	w.must(db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		return meta.Put([]byte("version"), []byte("3"))
	}))
	w.must(db.Close())
	earlier, err := os.ReadFile(path)
	w.must(err)
	if bytes.Equal(earlier, m.file) {
		w.Fatal("the file is as it was")
	}
	return earlier
}
