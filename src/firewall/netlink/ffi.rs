//! Calls libnftnl where nftnl's safe interface does not reach: expressions with registers of our
//! choice, sets with flags and size, elements with timeout and comment. Only this file of the room
//! has `unsafe` in it. Each function takes plain data and gives plain data.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use nftnl::expr::Expression;
use nftnl::nftnl_sys as sys;
use nftnl::set::{Set, SetKey};
use nftnl::{MsgType, NlMsg, ProtoFamily, Rule, Table};

/// An expression by its kernel name and attributes.
pub(super) struct Raw {
    pub(super) name: &'static CStr,
    pub(super) attributes: Vec<(u32, AttributeValue)>,
}

/// The value of an expression's attribute.
pub(super) enum AttributeValue {
    Number(u32),
    Byte(u8),
    Bytes(Vec<u8>),
    Text(CString),
}

impl Expression for Raw {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name is a C string, and libnftnl keeps no pointer to it.
        let expr = unsafe { sys::nftnl_expr_alloc(self.name.as_ptr()) };
        let Some(expr) = NonNull::new(expr) else {
            // Memory has run out, or libnftnl does not know the name. The names are constants, and
            // every one of them is used by a test.
            std::process::abort();
        };
        for (attribute, value) in &self.attributes {
            #[allow(clippy::cast_possible_truncation, reason = "all below 20")]
            let attribute = *attribute as u16;
            // SAFETY: `expr` is a live expression of libnftnl's own; each setter copies its value,
            // and pointer and length belong to the same live value.
            unsafe {
                match value {
                    AttributeValue::Number(n) => {
                        sys::nftnl_expr_set_u32(expr.as_ptr(), attribute, *n)
                    }
                    AttributeValue::Byte(n) => sys::nftnl_expr_set_u8(expr.as_ptr(), attribute, *n),
                    AttributeValue::Bytes(b) => {
                        let length = u32::try_from(b.len()).unwrap_or(0);
                        let data = b.as_ptr().cast::<c_void>();
                        sys::nftnl_expr_set(expr.as_ptr(), attribute, data, length);
                    }
                    AttributeValue::Text(t) => {
                        sys::nftnl_expr_set_str(expr.as_ptr(), attribute, t.as_ptr());
                    }
                }
            }
        }
        expr
    }
}

/// Room for one message: as much as libnftnl asks for, aligned for the message's header.
pub(super) struct Scratch(Vec<u64>);

impl Scratch {
    pub(super) fn new() -> Self {
        let bytes = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(1 << 17);
        Self(vec![0; bytes.div_ceil(8)])
    }

    /// Returns room for nothing, to stand in for a `Scratch` that is lent.
    pub(super) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Writes one message and gives its bytes to `take`.
    pub(super) fn message<R>(
        &mut self,
        message: &impl NlMsg,
        kind: MsgType,
        take: impl FnOnce(&[u8]) -> R,
    ) -> R {
        if self.0.is_empty() {
            *self = Self::new();
        }
        let start = self.0.as_mut_ptr();
        // SAFETY: the buffer has `nft_nlmsg_maxsize` bytes, as `NlMsg::write` demands, and is
        // aligned to 8.
        unsafe { message.write(start.cast::<c_void>(), 0, kind) };
        let whole = self.0.len() * 8;
        // SAFETY: the same buffer, all of it initialised, seen as bytes; nothing else
        // refers to it while this slice lives.
        let bytes = unsafe { std::slice::from_raw_parts(start.cast::<u8>(), whole) };
        let length = bytes
            .first_chunk()
            .map_or(0, |b| u32::from_ne_bytes(*b) as usize);
        take(bytes.get(..length).unwrap_or_default())
    }
}

/// The key type that nftnl's `Set` demands. Type and length of the key are set by hand.
pub(super) struct AnyKey;

impl SetKey for AnyKey {
    const TYPE: u32 = 0;
    const LEN: u32 = 0;

    fn data(&self) -> Box<[u8]> {
        Box::default()
    }
}

/// How the kernel keeps a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetShape {
    pub(super) key_type: u32,
    pub(super) key_len: u32,
    pub(super) flags: u32,
    pub(super) size: u32,
}

/// Returns a set with flags and size.
pub(super) fn sized_set<'a>(
    table: &'a Table,
    name: &CStr,
    id: u32,
    shape: SetShape,
) -> Set<'a, AnyKey> {
    let set = Set::new_named(name, id, table, table.get_family());
    let raw = set.as_ptr().as_ptr();
    let numbers = [
        (sys::NFTNL_SET_KEY_TYPE, shape.key_type),
        (sys::NFTNL_SET_KEY_LEN, shape.key_len),
        (sys::NFTNL_SET_FLAGS, shape.flags),
        (sys::NFTNL_SET_DESC_SIZE, shape.size),
    ];
    for (attribute, value) in numbers {
        #[allow(clippy::cast_possible_truncation, reason = "all below 20")]
        // SAFETY: `raw` is the live set that `set` owns.
        unsafe {
            sys::nftnl_set_set_u32(raw, attribute as u16, value);
        }
    }
    set
}

/// An element in the kernel's own form.
pub(super) struct RawElement {
    /// The key, each part padded to 4 bytes.
    pub(super) key: Vec<u8>,
    /// The timeout in milliseconds; `None`: the element stays.
    pub(super) timeout: Option<u64>,
    /// The userdata, which has the comment: see [`comment`](super::elements::comment).
    pub(super) userdata: Vec<u8>,
}

/// Returns a set by its name, with these elements, for messages about elements only.
pub(super) fn filled_set<'a>(
    table: &'a Table,
    family: ProtoFamily,
    name: &CStr,
    elements: &[RawElement],
) -> Set<'a, AnyKey> {
    let set = Set::new_named(name, 0, table, family);
    for element in elements {
        let RawElement {
            key,
            timeout,
            userdata,
        } = element;
        // SAFETY: the call takes nothing, and gives an element that is ours until it is added
        // below.
        let Some(raw) = NonNull::new(unsafe { sys::nftnl_set_elem_alloc() }) else {
            std::process::abort();
        };
        let raw = raw.as_ptr();
        #[allow(clippy::cast_possible_truncation, reason = "all below 20")]
        // SAFETY: `raw` is live; the setters copy, and pointers and lengths belong to live
        // vectors. The last call hands the element over to the live set, which frees it.
        unsafe {
            let bytes = |attribute: u32, data: &[u8]| {
                let length = u32::try_from(data.len()).unwrap_or(0);
                let data = data.as_ptr().cast::<c_void>();
                sys::nftnl_set_elem_set(raw, attribute as u16, data, length);
            };
            bytes(sys::NFTNL_SET_ELEM_KEY, key);
            if !userdata.is_empty() {
                bytes(sys::NFTNL_SET_ELEM_USERDATA, userdata);
            }
            if let Some(ms) = timeout {
                sys::nftnl_set_elem_set_u64(raw, sys::NFTNL_SET_ELEM_TIMEOUT as u16, *ms);
            }
            sys::nftnl_set_elem_add(set.as_ptr().as_ptr(), raw);
        }
    }
    set
}
