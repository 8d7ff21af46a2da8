package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// The layout of a bbolt file (its internal/common), in the byte order of the host.
const (
	pageHeader = 16 // id 8, flags 2, count 2, overflow 4
	element    = 16 // of a branch: pos 4, ksize 4, page 8; of a leaf: flags 4, pos 4, ksize 4, vsize 4
	bucketHead = 16 // root page 8, sequence 8; root 0 is followed by a page inside the value

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf's element

	metaMagic   = 0xED0CDAED
	metaFormat  = 2
	metaSummed  = 56 // bytes of the meta that its checksum covers
	longList    = 0xFFFF
	minPageSize = 1024
)

// checkPages reports what is wrong with the structure of a bbolt file: every page must be used exactly once or be free, lie
// within the file, and hold its keys in order. bbolt itself believes its pages: a wrong number in one makes it panic, read elsewhere
// in memory, or write over pages that are in use. It has a check of its own, which follows wrong numbers too and then ends the process.
func checkPages(file []byte) error {
	m, err := newestMeta(file)
	if err != nil {
		return err
	}
	if m.pages > uint64(len(file))/m.pageSize {
		return fmt.Errorf("it is cut short: %d bytes are there of %d pages of %d", len(file), m.pages, m.pageSize)
	}
	w := &walk{file: file, meta: m, used: make([]bool, m.pages)}
	w.used[0], w.used[1] = true, true
	if err := w.tree(m.root, nil, nil); err != nil {
		return err
	}
	if err := w.freelist(); err != nil {
		return err
	}
	for id, used := range w.used {
		if !used {
			return fmt.Errorf("page %d is neither in use nor free", id)
		}
	}
	return nil
}

// meta is what a meta page says.
type meta struct{ pageSize, root, freelist, pages, tx uint64 }

// newestMeta returns the meta page that bbolt goes by: the valid one of the later transaction. The other one is from the
// transaction before, which a crash while a meta page is written leaves as the last one.
func newestMeta(file []byte) (meta, error) {
	newest, err := readMetaPage(file)
	size := newest.pageSize
	if err != nil {
		size = uint64(minPageSize) // unknown: as bbolt does, look where the second page may be
	}
	for ; size <= minPageSize<<14 && size < uint64(len(file)); size *= 2 {
		second, err2 := readMetaPage(file[size:])
		if err2 == nil && second.pageSize == size && (err != nil || second.tx > newest.tx) {
			return second, nil
		}
		if err == nil {
			break
		}
	}
	return newest, err
}

func readMetaPage(b []byte) (meta, error) {
	if len(b) < pageHeader+metaSummed+8 {
		return meta{}, errors.New("it is too short")
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[pageHeader+at:]) }
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(b[pageHeader+at:]) }
	sum := fnv.New64a()
	_, _ = sum.Write(b[pageHeader : pageHeader+metaSummed])
	switch {
	case u32(0) != metaMagic || u32(4) != metaFormat:
		return meta{}, errors.New("it does not begin as a state file does")
	case u64(metaSummed) != sum.Sum64():
		return meta{}, errors.New("the checksum of its first page is wrong")
	}
	m := meta{pageSize: uint64(u32(8)), root: u64(16), freelist: u64(32), pages: u64(40), tx: u64(48)}
	if m.pageSize < minPageSize || m.pages < 4 {
		return meta{}, errors.New("its first page makes no sense")
	}
	return m, nil
}

// walk marks the pages that are in use.
type walk struct {
	file []byte
	meta
	used []bool
}

// page is the head of a page and the bytes of it and of those that continue it.
type page struct {
	flags, count uint16
	bytes        []byte
}

func parsePage(b []byte) page {
	return page{binary.NativeEndian.Uint16(b[8:]), binary.NativeEndian.Uint16(b[10:]), b}
}

// take returns a page that is not in use yet, and marks it.
func (w *walk) take(id uint64) (page, error) {
	if id < 2 || id >= w.pages {
		return page{}, fmt.Errorf("page %d does not exist", id)
	}
	b := w.file[id*w.pageSize:]
	if own := binary.NativeEndian.Uint64(b); own != id {
		return page{}, fmt.Errorf("page %d says that it is page %d", id, own)
	}
	more := uint64(binary.NativeEndian.Uint32(b[12:]))
	if more >= w.pages-id {
		return page{}, fmt.Errorf("page %d goes on beyond the end", id)
	}
	for i := id; i <= id+more; i++ {
		if err := w.mark(i); err != nil {
			return page{}, err
		}
	}
	return parsePage(b[:(more+1)*w.pageSize]), nil
}

func (w *walk) mark(id uint64) error {
	if w.used[id] {
		return fmt.Errorf("page %d is in use twice", id)
	}
	w.used[id] = true
	return nil
}

// tree checks the pages below one, whose keys are to be from min on and below max, where those are given.
func (w *walk) tree(id uint64, minKey, maxKey []byte) error {
	p, err := w.take(id)
	if err != nil {
		return err
	}
	if p.flags != flagBranch {
		if err := w.leaf(p, minKey, maxKey); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	keys, err := p.keys(4, minKey, maxKey)
	switch {
	case err != nil:
		return fmt.Errorf("page %d: %w", id, err)
	case len(keys) == 0:
		return fmt.Errorf("page %d leads nowhere", id)
	}
	for i, key := range keys {
		end := maxKey
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		below := binary.NativeEndian.Uint64(p.bytes[pageHeader+i*element+8:])
		if err := w.tree(below, key, end); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a page of keys and values, and the buckets that are among these.
func (w *walk) leaf(p page, minKey, maxKey []byte) error {
	if p.flags != flagLeaf {
		return fmt.Errorf("it is of the unknown kind %#x", p.flags)
	}
	keys, err := p.keys(8, minKey, maxKey)
	if err != nil {
		return err
	}
	for i := range keys {
		e := p.bytes[pageHeader+i*element:]
		value, err := p.part(i, uint64(binary.NativeEndian.Uint32(e[4:]))+uint64(len(keys[i])), uint64(binary.NativeEndian.Uint32(e[12:])))
		if err != nil {
			return err
		}
		switch flags := binary.NativeEndian.Uint32(e); flags {
		case 0:
		case flagBucket:
			if err := w.bucket(value); err != nil {
				return fmt.Errorf("bucket %q: %w", keys[i], err)
			}
		default:
			return fmt.Errorf("key %q is of the unknown kind %#x", keys[i], flags)
		}
	}
	return nil
}

// bucket checks a bucket that is kept as a value, or as a tree of its own.
func (w *walk) bucket(value []byte) error {
	if len(value) < bucketHead {
		return errors.New("it is cut short")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return w.tree(root, nil, nil)
	}
	if len(value) < bucketHead+pageHeader {
		return errors.New("it is cut short")
	}
	return w.leaf(parsePage(value[bucketHead:]), nil, nil)
}

// keys returns the keys of a page, whose places are at an offset in each element.
func (p page) keys(at int, minKey, maxKey []byte) ([][]byte, error) {
	if pageHeader+int(p.count)*element > len(p.bytes) {
		return nil, fmt.Errorf("it has no room for %d keys", p.count)
	}
	keys := make([][]byte, p.count)
	for i := range keys {
		e := p.bytes[pageHeader+i*element:]
		pos := uint64(binary.NativeEndian.Uint32(e[at-4:]))
		key, err := p.part(i, pos, uint64(binary.NativeEndian.Uint32(e[at:])))
		if err != nil {
			return nil, err
		}
		if i == 0 && bytes.Compare(key, minKey) < 0 || i > 0 && bytes.Compare(key, keys[i-1]) <= 0 || maxKey != nil && bytes.Compare(key, maxKey) >= 0 {
			return nil, fmt.Errorf("key %q is not in order", key)
		}
		keys[i] = key
	}
	return keys, nil
}

// part returns the bytes at a distance from the i-th element.
func (p page) part(i int, pos, size uint64) ([]byte, error) {
	from := uint64(pageHeader+i*element) + pos
	if from > uint64(len(p.bytes)) || size > uint64(len(p.bytes))-from {
		return nil, fmt.Errorf("its entry %d lies outside of it", i)
	}
	return p.bytes[from : from+size], nil
}

// freelist marks the pages that may be written over.
func (w *walk) freelist() error {
	p, err := w.take(w.meta.freelist)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	if p.flags != flagFreelist {
		return fmt.Errorf("page %d is no list of free pages", w.meta.freelist)
	}
	ids, count := p.bytes[pageHeader:], uint64(p.count)
	if p.count == longList {
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("the list of %d free pages is cut short", count)
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		id := binary.NativeEndian.Uint64(ids)
		if id < 2 || id >= w.pages {
			return fmt.Errorf("free page %d does not exist", id)
		}
		if err := w.mark(id); err != nil {
			return err
		}
	}
	return nil
}
