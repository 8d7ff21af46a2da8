package store

import (
	"maps"
	"slices"
)

// edit is the records of one kind with changes laid over them. The base is shared
// with other readers and never written.
type edit[K comparable, V any] struct {
	kind *kind[K, V]
	base []V // sorted by key

	// changed holds exactly what differs from base: a key is deleted only if base
	// has it, and put only if base has it not or has another value.
	changed map[K]change[V]
	touched bool // a put or delete was called, whether it changed anything or not
}

type change[V any] struct {
	value   V
	deleted bool
}

func newEdit[K comparable, V any](k *kind[K, V], base []V) edit[K, V] {
	return edit[K, V]{kind: k, base: base, changed: map[K]change[V]{}}
}

// find returns where key is in the sorted rows, or where it would be.
func (k *kind[K, V]) find(rows []V, key K) (int, bool) {
	return slices.BinarySearchFunc(rows, key, func(v V, key K) int { return k.order(k.key(v), key) })
}

func (e *edit[K, V]) get(key K) (V, bool) {
	if c, ok := e.changed[key]; ok {
		return e.kind.clone(c.value), !c.deleted
	}
	if i, ok := e.kind.find(e.base, key); ok {
		return e.kind.clone(e.base[i]), true
	}
	var none V
	return none, false
}

func (e *edit[K, V]) put(v V) {
	e.touched = true
	key := e.kind.key(v)
	if i, ok := e.kind.find(e.base, key); ok && e.kind.equal(e.base[i], v) {
		delete(e.changed, key)
		return
	}
	e.changed[key] = change[V]{value: e.kind.clone(v)}
}

func (e *edit[K, V]) delete(key K) {
	e.touched = true
	if _, ok := e.kind.find(e.base, key); !ok {
		delete(e.changed, key)
		return
	}
	e.changed[key] = change[V]{deleted: true}
}

// rows returns the sorted result, nil if it is empty. It is base itself where
// nothing changed; its values still share memory with the edit.
func (e *edit[K, V]) rows() []V {
	if len(e.changed) == 0 {
		return e.base
	}
	out := make([]V, 0, len(e.base)+len(e.changed))
	rest := e.base
	for _, key := range slices.SortedFunc(maps.Keys(e.changed), e.kind.order) {
		i, replaces := e.kind.find(rest, key)
		out = append(out, rest[:i]...)
		if c := e.changed[key]; !c.deleted {
			out = append(out, c.value)
		}
		if replaces {
			i++
		}
		rest = rest[i:]
	}
	out = append(out, rest...)
	if len(out) == 0 {
		return nil
	}
	return slices.Clip(out) // an append by a reader must not write into what others read
}

// list returns copies of those rows that keep wants, for users of a Tx.
func (e *edit[K, V]) list(keep func(V) bool) []V {
	var out []V
	for _, v := range e.rows() {
		if keep == nil || keep(v) {
			out = append(out, e.kind.clone(v))
		}
	}
	return out
}

// count is the length of rows without making them.
func (e *edit[K, V]) count() int {
	n := len(e.base)
	for key, c := range e.changed {
		_, replaces := e.kind.find(e.base, key)
		switch {
		case c.deleted:
			n--
		case !replaces:
			n++
		}
	}
	return n
}

// records returns what has to be written for the changes, in the order of the keys.
func (e *edit[K, V]) records() ([]record, error) {
	var out []record
	for _, key := range slices.SortedFunc(maps.Keys(e.changed), e.kind.order) {
		c := e.changed[key]
		if c.deleted {
			out = append(out, record{bucket: e.kind.bucket, key: []byte(e.kind.file(key))})
			continue
		}
		r, err := e.kind.encode(c.value)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
