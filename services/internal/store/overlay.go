package store

import (
	"bytes"
	"hash/maphash"
)

// overlay holds the writes of one transaction in the order of their keys. It is a
// treap whose nodes are copied when they are changed after a walk has begun, so that
// a walk sees what was there when it began, and costs nothing to begin.
type overlay struct {
	root  *node
	epoch int // nodes of an older epoch may be part of a walk
	seed  maphash.Seed
}

// node is one write; a nil value deletes the key.
type node struct {
	key, value  []byte
	left, right *node
	priority    uint64 // no child's is greater
	epoch       int
}

// set keeps both slices.
func (o *overlay) set(key, value []byte) {
	o.root = o.insert(o.root, &node{
		key: key, value: value,
		priority: maphash.Bytes(o.seed, key), epoch: o.epoch,
	})
}

func (o *overlay) insert(n, add *node) *node {
	if n == nil {
		return add
	}
	n = o.own(n)
	switch c := bytes.Compare(add.key, n.key); {
	case c == 0:
		n.value = add.value
	case c < 0:
		n.left = o.insert(n.left, add)
		if l := n.left; l.priority > n.priority {
			n.left, l.right = l.right, n
			return l
		}
	default:
		n.right = o.insert(n.right, add)
		if r := n.right; r.priority > n.priority {
			n.right, r.left = r.left, n
			return r
		}
	}
	return n
}

// own returns n, or a copy if a walk may see n.
func (o *overlay) own(n *node) *node {
	if n.epoch == o.epoch {
		return n
	}
	c := *n
	c.epoch = o.epoch
	return &c
}

// freeze returns the writes as they are now; later ones do not change them.
func (o *overlay) freeze() *node {
	o.epoch++
	return o.root
}

// find returns the value that the key has in n's subtree.
func (n *node) find(key []byte) (value []byte, ok bool) {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c == 0:
			return n.value, true
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil, false
}

// walk goes through the writes with lo <= key < hi in order.
type walk struct {
	lo, hi  []byte
	reverse bool
	path    []*node // nodes still to be returned, the next one last
}

func (n *node) walk(lo, hi []byte, reverse bool) walk {
	w := walk{lo: lo, hi: hi, reverse: reverse}
	w.descend(n)
	return w
}

// descend pushes the way from n to the first write of n's subtree.
func (w *walk) descend(n *node) {
	for n != nil {
		switch {
		case bytes.Compare(n.key, w.lo) < 0:
			n = n.right
		case bytes.Compare(n.key, w.hi) >= 0:
			n = n.left
		default:
			w.path = append(w.path, n)
			n = w.near(n)
		}
	}
}

func (w *walk) near(n *node) *node {
	if w.reverse {
		return n.right
	}
	return n.left
}

// next returns nil at the end.
func (w *walk) next() *node {
	last := len(w.path) - 1
	if last < 0 {
		return nil
	}
	n := w.path[last]
	w.path = w.path[:last]
	if w.reverse {
		w.descend(n.left)
	} else {
		w.descend(n.right)
	}
	return n
}
