// A module beside an answer in Rust; what it reads and writes is described in driver_javascript.js.
// The types of the arguments are those the answer's function declares.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
use std::hash::Hash;
use std::io::{Read as _, Write as _};

pub struct Input {
    tokens: std::vec::IntoIter<String>,
}

impl Input {
    fn next(&mut self, tag: char) -> String {
        let token = self.tokens.next().expect("no further argument");
        assert!(token.starts_with(tag), "an argument is not of the type its parameter declares");
        token[1..].to_string()
    }
    fn count(&mut self, tag: char) -> usize {
        self.next(tag).parse().unwrap()
    }
}

pub trait Given: Sized {
    fn read(input: &mut Input) -> Self;
}
pub trait Returned {
    fn write(&self, out: &mut String);
}

macro_rules! whole {
    ($($kind:ty)*) => {$(
        impl Given for $kind {
            fn read(input: &mut Input) -> Self {
                input.next('i').parse().expect("an argument does not fit its type")
            }
        }
        impl Returned for $kind {
            #[allow(unused_comparisons)]
            fn write(&self, out: &mut String) {
                let below = *self < 0;
                let size = if below { (*self as i128).unsigned_abs() } else { *self as u128 };
                out.push_str(&format!("[\"i\",\"{}{:x}\"]", if below { "-" } else { "" }, size));
            }
        }
    )*};
}
whole!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

impl Given for f64 {
    fn read(input: &mut Input) -> Self {
        f64::from_bits(u64::from_str_radix(&input.next('f'), 16).unwrap())
    }
}
impl Given for f32 {
    fn read(input: &mut Input) -> Self {
        f64::read(input) as f32
    }
}
impl Given for bool {
    fn read(input: &mut Input) -> Self {
        input.next('b') == "1"
    }
}
impl Given for String {
    fn read(input: &mut Input) -> Self {
        let text = input.next('s');
        let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    }
}
impl<T: Given> Given for Vec<T> {
    fn read(input: &mut Input) -> Self {
        (0..input.count('l')).map(|_| T::read(input)).collect()
    }
}
// the keys of a map are texts: a type of keys that cannot be read from one is never given any
impl<K: Given + Hash + Eq, T: Given> Given for HashMap<K, T> {
    fn read(input: &mut Input) -> Self {
        (0..input.count('d')).map(|_| (K::read(input), T::read(input))).collect()
    }
}
impl<K: Given + Ord, T: Given> Given for BTreeMap<K, T> {
    fn read(input: &mut Input) -> Self {
        (0..input.count('d')).map(|_| (K::read(input), T::read(input))).collect()
    }
}
// a text of one letter
impl Given for char {
    fn read(input: &mut Input) -> Self {
        let text = String::read(input);
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) => letter,
            _ => panic!("an argument is not one char"),
        }
    }
}
macro_rules! given_as_list {
    ($($kind:ty)*) => {$(
        impl<T: Given> Given for $kind {
            fn read(input: &mut Input) -> Self {
                Vec::<T>::read(input).into_iter().collect()
            }
        }
    )*};
}
given_as_list!(VecDeque<T> LinkedList<T> Box<[T]>);
impl<T: Given> Given for std::vec::IntoIter<T> {
    fn read(input: &mut Input) -> Self {
        Vec::<T>::read(input).into_iter()
    }
}
impl<T: Given, const N: usize> Given for [T; N] {
    fn read(input: &mut Input) -> Self {
        Vec::<T>::read(input).try_into().ok().expect("a list of another length")
    }
}
// nothing is sorted, and no equals are removed, on the answer's behalf
impl<T: Given + Hash + Eq> Given for HashSet<T> {
    fn read(input: &mut Input) -> Self {
        let items = Vec::<T>::read(input);
        let (count, set) = (items.len(), items.into_iter().collect::<Self>());
        assert!(set.len() == count, "no set holds what this list holds");
        set
    }
}
impl<T: Given + Ord> Given for BTreeSet<T> {
    fn read(input: &mut Input) -> Self {
        let items = Vec::<T>::read(input);
        assert!(items.windows(2).all(|two| two[0] < two[1]), "no set holds what this list holds, in its order");
        items.into_iter().collect()
    }
}
impl<T: Given> Given for Option<T> {
    fn read(input: &mut Input) -> Self {
        if input.tokens.as_slice().first().map(String::as_str) == Some("n") {
            input.next('n');
            return None;
        }
        Some(T::read(input))
    }
}
impl Given for &'static str {
    fn read(input: &mut Input) -> Self {
        Box::leak(String::read(input).into_boxed_str())
    }
}
impl<T: Given> Given for &'static [T] {
    fn read(input: &mut Input) -> Self {
        Vec::<T>::read(input).leak()
    }
}
impl<T: Given> Given for &'static mut [T] {
    fn read(input: &mut Input) -> Self {
        Vec::<T>::read(input).leak()
    }
}
// &Vec<T>, &String, &HashMap<..>, &i32 and the like
impl<T: Given> Given for &'static T {
    fn read(input: &mut Input) -> Self {
        Box::leak(Box::new(T::read(input)))
    }
}
impl<T: Given> Given for &'static mut T {
    fn read(input: &mut Input) -> Self {
        Box::leak(Box::new(T::read(input)))
    }
}

impl Returned for f64 {
    fn write(&self, out: &mut String) {
        out.push_str(&format!("[\"D\",\"{:016x}\"]", self.to_bits()));
    }
}
impl Returned for f32 {
    fn write(&self, out: &mut String) {
        (*self as f64).write(out);
    }
}
impl Returned for bool {
    fn write(&self, out: &mut String) {
        out.push_str(if *self { "[\"b\",1]" } else { "[\"b\",0]" });
    }
}
impl Returned for str {
    fn write(&self, out: &mut String) {
        let text: String = self.bytes().map(|byte| format!("{byte:02x}")).collect();
        out.push_str(&format!("[\"u\",\"{text}\"]"));
    }
}
impl Returned for String {
    fn write(&self, out: &mut String) {
        self.as_str().write(out);
    }
}
impl Returned for char {
    fn write(&self, out: &mut String) {
        self.to_string().write(out);
    }
}
fn write_items<'a, T: Returned + 'a>(items: impl IntoIterator<Item = &'a T>, out: &mut String) {
    out.push_str("[\"l\",[");
    for (at, item) in items.into_iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        item.write(out);
    }
    out.push_str("]]");
}
// what has an order
macro_rules! returned_as_list {
    ($($kind:ty)*) => {$(
        impl<T: Returned> Returned for $kind {
            fn write(&self, out: &mut String) {
                write_items(self, out);
            }
        }
    )*};
}
returned_as_list!([T] Vec<T> VecDeque<T> LinkedList<T> BTreeSet<T>);
impl<T: Returned, const N: usize> Returned for [T; N] {
    fn write(&self, out: &mut String) {
        write_items(self, out);
    }
}
// a tuple is a list of so many
macro_rules! tuples {
    ($($first:ident $($name:ident)*;)*) => {$(
        impl<$first: Given, $($name: Given),*> Given for ($first, $($name),*) {
            fn read(input: &mut Input) -> Self {
                let count = [stringify!($first), $(stringify!($name)),*].len();
                assert!(input.count('l') == count, "a list of another length");
                ($first::read(input), $($name::read(input)),*)
            }
        }
        #[allow(non_snake_case)]
        impl<$first: Returned, $($name: Returned),*> Returned for ($first, $($name),*) {
            fn write(&self, out: &mut String) {
                let ($first, $($name),*) = self;
                out.push_str("[\"l\",[");
                $first.write(out);
                $(out.push(','); $name.write(out);)*
                out.push_str("]]");
            }
        }
    )*};
}
tuples!(A B; A B C; A B C D;);
impl<T: Returned> Returned for Option<T> {
    fn write(&self, out: &mut String) {
        match self {
            Some(value) => value.write(out),
            None => out.push_str("[\"N\"]"),
        }
    }
}
macro_rules! returned_as_target {
    ($($kind:ty)*) => {$(
        impl<T: Returned + ?Sized> Returned for $kind {
            fn write(&self, out: &mut String) {
                (**self).write(out);
            }
        }
    )*};
}
returned_as_target!(&T &mut T Box<T> std::rc::Rc<T>);
impl<T: Returned + ToOwned + ?Sized> Returned for Cow<'_, T> {
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }
}
fn write_pairs<'a, K: Returned + 'a, T: Returned + 'a>(
    pairs: impl Iterator<Item = (&'a K, &'a T)>,
    out: &mut String,
) {
    out.push_str("[\"d\",[");
    for (at, (key, item)) in pairs.enumerate() {
        out.push_str(if at > 0 { ",[" } else { "[" });
        key.write(out);
        out.push(',');
        item.write(out);
        out.push(']');
    }
    out.push_str("]]");
}
impl<K: Returned, T: Returned> Returned for HashMap<K, T> {
    fn write(&self, out: &mut String) {
        write_pairs(self.iter(), out);
    }
}
impl<K: Returned, T: Returned> Returned for BTreeMap<K, T> {
    fn write(&self, out: &mut String) {
        write_pairs(self.iter(), out);
    }
}

/// A function of so many parameters.
pub trait Called<Parameters> {
    fn call(self, input: &mut Input, out: &mut String);
}
macro_rules! called {
    ($($name:ident)*) => {
        impl<R: Returned, F: FnOnce($($name),*) -> R, $($name: Given),*> Called<($($name,)*)> for F {
            #[allow(unused_variables)]
            fn call(self, input: &mut Input, out: &mut String) {
                self($($name::read(input)),*).write(out);
            }
        }
    };
}
called!();
called!(A);
called!(A B);
called!(A B C);
called!(A B C D);
called!(A B C D E);
called!(A B C D E G);
called!(A B C D E G H);
called!(A B C D E G H I);
called!(A B C D E G H I J);
called!(A B C D E G H I J K);
called!(A B C D E G H I J K L);
called!(A B C D E G H I J K L M);

/// Call a function with what standard input holds, and leave.
pub fn run<Parameters>(function: impl Called<Parameters>) {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let mut channel = std::fs::OpenOptions::new().write(true).open("/proc/self/fd/3").unwrap();
    let tokens: Vec<String> = text.lines().map(String::from).collect();
    let mark = tokens[0].clone();
    let mut input = Input { tokens: tokens[4..].to_vec().into_iter() };
    let mut out = format!("{mark}\nV");
    function.call(&mut input, &mut out);
    let _ = channel.write_all(out.as_bytes());
    std::process::exit(0);
}
