// Stands before an answer in C++, which the host includes behind it; what it reads and writes is described in
// driver_javascript.js. The types of the arguments are those the answer's function declares.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace assay_driver {

struct Input {
    std::string text;
    std::size_t at = 0;
    std::string next() {
        std::size_t end = text.find('\n', at);
        if (end == std::string::npos) throw std::runtime_error("no further argument");
        std::string token = text.substr(at, end - at);
        at = end + 1;
        return token;
    }
};

template <template <class...> class Wanted, class T> struct Is : std::false_type {};
template <template <class...> class Wanted, class... Parts> struct Is<Wanted, Wanted<Parts...>> : std::true_type {};
template <class T> constexpr bool is_map = Is<std::map, T>::value || Is<std::unordered_map, T>::value;
template <class T> constexpr bool is_whole =
    std::is_integral_v<T> && !std::is_same_v<T, char> && !std::is_same_v<T, wchar_t>;

inline std::string from_hex(const std::string &text, std::size_t from) {
    std::string out;
    for (; from + 1 < text.size(); from += 2) out += (char)std::strtol(text.substr(from, 2).c_str(), nullptr, 16);
    return out;
}

template <class T> T read(Input &input) {
    std::string token = input.next(), rest = token.substr(1);
    if constexpr (Is<std::optional, T>::value) {
        if (token[0] == 'n') return std::nullopt;
        input.at -= token.size() + 1;
        return read<typename T::value_type>(input);
    } else if constexpr (std::is_same_v<T, bool>) {
        if (token[0] == 'b') return rest == "1";
    } else if constexpr (is_whole<T>) {
        if (token[0] == 'i') {
            long long value = std::strtoll(rest.c_str(), nullptr, 10);
            bool small = std::is_unsigned_v<T> && value < 0;
            if (small || (long long)(T)value != value) throw std::out_of_range("an argument does not fit its type");
            return (T)value;
        }
    } else if constexpr (std::is_floating_point_v<T>) {
        if (token[0] == 'f') {
            std::uint64_t bits = std::strtoull(rest.c_str(), nullptr, 16);
            double value;
            std::memcpy(&value, &bits, sizeof value);
            return (T)value;
        }
    } else if constexpr (std::is_same_v<T, std::string>) {
        if (token[0] == 's') return from_hex(token, 1);
    } else if constexpr (std::is_same_v<T, std::string_view>) {
        if (token[0] == 's') return *new std::string(from_hex(token, 1));
    } else if constexpr (std::is_same_v<T, const char *>) {
        if (token[0] == 's') return (new std::string(from_hex(token, 1)))->c_str();
    } else if constexpr (Is<std::vector, T>::value) {
        if (token[0] == 'l') {
            T out;
            for (long left = std::atol(rest.c_str()); left > 0; left--)
                out.push_back(read<typename T::value_type>(input));
            return out;
        }
    } else if constexpr (is_map<T>) {
        if (token[0] == 'd') {
            T out;
            for (long left = std::atol(rest.c_str()); left > 0; left--) {
                auto key = read<typename T::key_type>(input);
                out.emplace(std::move(key), read<typename T::mapped_type>(input));
            }
            return out;
        }
    } else {
        static_assert(!sizeof(T *), "the function has a parameter of a type that no argument can have");
    }
    throw std::invalid_argument("an argument is not of the type its parameter declares");
}

inline std::string hex(const unsigned char *data, std::size_t size) {
    std::string out;
    for (std::size_t i = 0; i < size; i++) {
        out += "0123456789abcdef"[data[i] >> 4];
        out += "0123456789abcdef"[data[i] & 15];
    }
    return out;
}

inline std::string number(std::uint64_t value) {
    char text[24];
    std::snprintf(text, sizeof text, "%llx", (unsigned long long)value);
    return text;
}

template <class T> std::string written(const T &value) {
    if constexpr (Is<std::optional, T>::value) {
        return value ? written(*value) : "[\"N\"]";
    } else if constexpr (std::is_same_v<T, bool>) {
        return value ? "[\"b\",1]" : "[\"b\",0]";
    } else if constexpr (is_whole<T>) {
        bool below = value < T(0);
        return std::string("[\"i\",\"") + (below ? "-" : "") +
               number(below ? 0 - (std::uint64_t)value : (std::uint64_t)value) + "\"]";
    } else if constexpr (std::is_floating_point_v<T>) {
        double wide = (double)value;
        std::uint64_t bits;
        std::memcpy(&bits, &wide, sizeof bits);
        std::string digits = number(bits);
        return "[\"D\",\"" + std::string(16 - digits.size(), '0') + digits + "\"]";
    } else if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, std::string_view>) {
        return "[\"u\",\"" + hex((const unsigned char *)value.data(), value.size()) + "\"]";
    } else if constexpr (std::is_same_v<T, const char *> || std::is_same_v<T, char *>) {
        return value ? "[\"u\",\"" + hex((const unsigned char *)value, std::strlen(value)) + "\"]" : "[\"N\"]";
    } else if constexpr (Is<std::vector, T>::value) {
        std::string out;
        for (std::size_t i = 0; i < value.size(); i++) {
            typename T::value_type item = value[i];
            out += (i ? "," : "") + written(item);
        }
        return "[\"l\",[" + out + "]]";
    } else if constexpr (is_map<T>) {
        std::string out;
        for (const auto &pair : value)
            out += (out.empty() ? "[" : ",[") + written(pair.first) + "," + written(pair.second) + "]";
        return "[\"d\",[" + out + "]]";
    } else {
        return "[\"O\",\"another type\"]";
    }
}

inline std::string said(const char *text) {
    std::string out;
    for (std::size_t i = 0; i < 500 && text[i]; i++)
        out += text[i] < ' ' || text[i] > '~' || text[i] == '"' || text[i] == '\\' ? '?' : text[i];
    return "E\"" + out + "\"";
}

template <class R, class... A> std::string call(R (*function)(A...), Input &input) {
    try {
        std::tuple<std::decay_t<A>...> values{read<std::decay_t<A>>(input)...};
        if constexpr (std::is_void_v<R>)
            return "V[\"O\",\"void\"]";
        else
            return "V" + written<std::decay_t<R>>(std::apply(
                             [&](auto &...one) -> R { return function(std::forward<A>((std::decay_t<A> &)one)...); },
                             values));
    } catch (const std::exception &error) {
        return said(error.what());
    } catch (...) {
        return said("an exception");
    }
}

}  // namespace assay_driver

std::string assay_test(assay_driver::Input &input);

int main() {
    assay_driver::Input input;
    char part[1 << 16];
    for (std::size_t got; (got = std::fread(part, 1, sizeof part, stdin)) > 0;) input.text.append(part, got);
    std::fclose(stdin);
    std::FILE *channel = std::fopen("/proc/self/fd/3", "wb");
    std::string mark = input.next(), reply;
    for (int left = 3; left > 0; left--) input.next();
    reply = mark + "\n" + assay_test(input);
    std::fwrite(reply.data(), 1, reply.size(), channel);
    std::fclose(channel);
    std::_Exit(0);
}

#define main main_of_the_answer
