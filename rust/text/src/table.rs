//! A hash table for large vocabularies, whose tables outgrow a core's own caches: who looks up many keys asks for their
//! places first (`prefetch`), so that the memory's answers overlap. Open addressing, linear probing, at most two thirds full.

pub trait Slot: Copy {
    const EMPTY: Self;
    fn is_empty(&self) -> bool;
}

pub struct Table<S> {
    slots: Vec<S>, // a power of two of them, and one is empty
    len: usize,
}

impl<S: Slot> Table<S> {
    pub fn with_capacity(entries: usize) -> Table<S> {
        Table { slots: vec![S::EMPTY; (entries + entries / 2 + 1).next_power_of_two()], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn prefetch(&self, hash: u64) {
        prefetch(self.slots.as_ptr().wrapping_add(hash as usize & (self.slots.len() - 1)));
    }

    pub fn find(&self, hash: u64, is_it: impl Fn(&S) -> bool) -> Option<S> {
        Some(self.slots[self.place(hash, is_it)]).filter(|slot| !slot.is_empty())
    }

    /// Where the entry is; the empty slot where it would be, if it is not there.
    fn place(&self, hash: u64, is_it: impl Fn(&S) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while !self.slots[at].is_empty() && !is_it(&self.slots[at]) {
            at = (at + 1) & mask;
        }
        at
    }

    /// Takes the place of an entry that is the same, which is returned. `hash_of` is the hash of an entry that is there.
    pub fn insert(
        &mut self,
        hash: u64,
        entry: S,
        is_it: impl Fn(&S) -> bool,
        hash_of: impl Fn(&S) -> u64,
    ) -> Option<S> {
        if (self.len + 1) * 3 > self.slots.len() * 2 {
            let mut larger = Table::with_capacity(self.len * 2 + 2);
            for slot in self.slots.iter().filter(|slot| !slot.is_empty()) {
                let at = larger.place(hash_of(slot), |_| false);
                larger.slots[at] = *slot;
            }
            self.slots = larger.slots;
        }
        let at = self.place(hash, is_it);
        let before = std::mem::replace(&mut self.slots[at], entry);
        if before.is_empty() {
            self.len += 1;
            return None;
        }
        Some(before)
    }
}

/// Asks for the cache line at an address, which need not be one.
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
