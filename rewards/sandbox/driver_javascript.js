// Runs inside a box, once per test: loads the answer, calls one of its functions, writes what it returned.
//
// Standard input, one token a line: a mark, the answer's file, the function, how many arguments, the arguments in the
// form of rewards/drivers_types.py. To descriptor 3 go the mark and V with the value in the notation of
// rewards/values.py, E with an exception or C with a syntax error. There is no expected value here.
(() => {
  const fs = require("fs"), vm = require("vm");
  const { apply, ownKeys, getPrototypeOf } = Reflect, { isArray } = Array, { is } = Object, { isSafeInteger } = Number;
  const big = BigInt, code = String.prototype.charCodeAt, digits = Number.prototype.toString, name = String;
  const bigDigits = BigInt.prototype.toString, entries = Map.prototype.forEach, members = Set.prototype.forEach;
  const [anObject, anArray, aMap, aSet] = [Object.prototype, Array.prototype, Map.prototype, Set.prototype];
  const typed = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float32Array,
    Float64Array].map((kind) => kind.prototype);
  const { isView } = ArrayBuffer, includes = aSet.has.bind(new Set(typed));
  const sizeOf = Object.getOwnPropertyDescriptor(getPrototypeOf(typed[0]), "length").get;
  const view = new DataView(new ArrayBuffer(8)), setFloat = view.setFloat64.bind(view), word = view.getUint32.bind(view);
  const write = fs.writeSync, leave = process.reallyExit.bind(process), bytes = Buffer.from;

  const tokens = fs.readFileSync(0, "latin1").split("\n");
  let at = 4;
  const read = () => {
    const token = tokens[at++], rest = token.slice(1);
    if (token[0] === "n") return null;
    if (token[0] === "b") return rest === "1";
    if (token[0] === "i") return Number(rest);
    if (token[0] === "f") return Buffer.from(rest, "hex").readDoubleBE(0);
    if (token[0] === "s") return Buffer.from(rest, "hex").toString("utf8");
    if (token[0] === "l") return Array.from({ length: Number(rest) }, read);
    const value = {};
    for (let left = Number(rest); left > 0; left--) {
      const key = read();
      Object.defineProperty(value, key, { value: read(), writable: true, enumerable: true, configurable: true });
    }
    return value;
  };
  const [mark, file, entry] = tokens, values = Array.from({ length: Number(tokens[3]) }, read);

  const hex = (number, width) => {
    let text = apply(digits, number, [16]);
    while (text.length < width) text = "0" + text;
    return text;
  };
  const quoted = (text) => {
    let out = '"';
    for (let i = 0; i < text.length; i++) {
      const unit = apply(code, text, [i]);
      const plain = unit >= 32 && unit < 127 && unit !== 34 && unit !== 92;
      out += plain ? text[i] : "\\u" + hex(unit, 4);
    }
    return out + '"';
  };
  const number = (value) => {
    if (isSafeInteger(value) && !is(value, -0)) return `["i","${apply(bigDigits, big(value), [16])}"]`;
    setFloat(0, value);
    return `["D","${hex(word(0), 8)}${hex(word(4), 8)}"]`;
  };
  const encoded = (value, depth) => {
    if (depth > 200) throw new RangeError("the value is too deeply nested to report");
    if (value === null || value === undefined) return '["N"]';
    const kind = typeof value;
    if (kind === "number") return number(value);
    if (kind === "boolean") return value ? '["b",1]' : '["b",0]';
    if (kind === "string") return `["s",${quoted(value)}]`;
    if (kind !== "object") return `["O","${kind}"]`;
    const prototype = getPrototypeOf(value);
    let out = "";
    const numbers = isView(value) && includes(prototype);
    if (numbers || (isArray(value) && prototype === anArray)) {
      const size = numbers ? apply(sizeOf, value, []) : value.length;
      for (let i = 0; i < size; i++) out += (i ? "," : "") + encoded(value[i], depth + 1);
      return `["l",[${out}]]`;
    }
    if (prototype === aSet) { // in the order they were put in
      apply(members, value, [(item) => { out += (out ? "," : "") + encoded(item, depth + 1); }]);
      return `["l",[${out}]]`;
    }
    const pair = (key, item) => { out += `${out ? "," : ""}[${encoded(key, depth + 1)},${encoded(item, depth + 1)}]`; };
    if (prototype === aMap) apply(entries, value, [(item, key) => pair(key, item)]);
    else if (prototype === anObject || prototype === null) {
      const keys = ownKeys(value);
      for (let i = 0; i < keys.length; i++) pair(keys[i], value[keys[i]]);
    } else return '["O","an object"]';
    return `["d",[${out}]]`;
  };
  const say = (kind, text) => {
    const data = bytes(`${mark}\n${kind}${text}`, "latin1");
    for (let done = 0; done < data.length;) done += write(3, data, done);
    leave(0);
  };
  const failed = (kind, error) => {
    let text = "an exception";
    try { text = error instanceof Error ? `${error.name}: ${error.message}` : name(error); } catch { /* theirs */ }
    say(kind, quoted(text.slice(0, 500)));
  };

  const module = { exports: {} };
  const globals = { require, module, exports: module.exports, __filename: file, __dirname };
  for (const key of Object.keys(globals)) globalThis[key] = globals[key];
  // a function of the name, or a method of a class Solution
  const method = `((one) => one.${entry}?.bind(one))(Solution.${entry} ? Solution : new Solution())`;
  const search = `typeof ${entry} === "function" ? ${entry} : typeof Solution === "function" ? ${method} : undefined`;
  const look = new vm.Script(search);
  let find = () => look.runInThisContext(), loading = true;
  const finish = (exported) => {
    loading = false;
    try {
      const named = [exported?.[entry], exported?.default?.[entry]];
      const call = [find(), ...named, exported, exported?.default].find((one) => typeof one === "function");
      if (call === undefined) throw new ReferenceError(`there is no function ${entry}`);
      say("V", encoded(apply(call, undefined, values), 0));
    } catch (error) {
      failed("E", error);
    }
  };
  process.on("exit", () => { if (loading) finish(module.exports); }); // a program that ends itself is loaded as well

  // a module (import and export are no syntax elsewhere) has names of its own, in which a function of ours looks
  const source = fs.readFileSync(file, "utf8").replace(/^#!.*/, "");
  const load = (problem) => {
    if (!/^\s*(?:import|export)\b/m.test(source)) failed("C", problem);
    globalThis.assayFind = (theirs) => { find = theirs; delete globalThis.assayFind; };
    const text = bytes(`globalThis.assayFind(() => ${search});${source}`).toString("base64");
    import(`data:text/javascript;base64,${text}`).then(finish, (error) => {
      failed(error instanceof SyntaxError ? "C" : "E", error);
    });
  };
  let script;
  try {
    script = new vm.Script(source, { filename: file });
  } catch (error) {
    load(error);
  }
  if (!script) return;
  try {
    script.runInThisContext();
  } catch (error) {
    failed("E", error);
  }
  finish(module.exports);
})();
