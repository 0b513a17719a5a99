"""Where the simulated fleet drives: cities, their streets as addresses, and their geofences."""

from typing import NamedTuple


class City(NamedTuple):
    """A city: its centre in degrees (WGS 84), the end of its addresses, its streets and geofences."""

    latitude: float
    longitude: float
    address: str
    streets: tuple[str, ...]
    geofences: tuple[str, ...]


CITIES: tuple[City, ...] = (
    City(
        22.719568, 75.857727, "Indore, Indore District, Madhya Pradesh, 452001, India",
        ("Mahatma Gandhi Road", "AB Road, Vijay Nagar", "Indore - Depalpur Road, Kharsora", "Ring Road, Khajrana"),
        ("Indore Depot", "Dewas Naka Yard"),
    ),
    City(
        19.075984, 72.877656, "Mumbai, Maharashtra, 400070, India",
        ("Lal Bahadur Shastri Marg, Kurla West", "Western Express Highway, Andheri East"),
        ("Nhava Sheva Gate 3", "Bhiwandi Warehouse"),
    ),
    City(
        -1.292066, 36.821945, "Nairobi, Nairobi County, 00100, Kenya",
        ("Mombasa Road, South C", "Thika Road, Kasarani", "Waiyaki Way, Westlands"), ("ICD Embakasi", "Thika Depot"),
    ),
    City(
        25.204849, 55.270783, "Dubai, United Arab Emirates",
        ("Sheikh Zayed Road, Al Quoz", "شارع الشيخ محمد بن زايد", "Al Khail Road, Business Bay"),
        ("Jebel Ali Free Zone", "ميناء راشد"),
    ),
    City(
        52.520007, 13.404954, "Berlin, 10178, Deutschland",
        ("Karl-Marx-Allee, Friedrichshain", "Straße des 17. Juni, Tiergarten", "Müllerstraße, Wedding"),
        ("Lager Großbeeren", "Westhafen"),
    ),
    City(
        -23.550520, -46.633308, "São Paulo, SP, 01001-000, Brasil",
        ("Avenida Paulista, Bela Vista", "Marginal Tietê, Barra Funda", "Rodovia Anhangüera, Pirituba"),
        ("Pátio Guarulhos", "CD Barueri"),
    ),
    City(
        41.878113, -87.629799, "Chicago, Cook County, Illinois, 60604, United States",
        ("South Pulaski Road, Archer Heights", "Interstate 55, Bridgeport", "West \"Lower\" Wacker Drive, The Loop"),
        ("Bedford Park Yard", "Joliet Terminal"),
    ),
    City(
        35.689487, 139.691711, "東京都, 160-0023, 日本",
        ("新宿区西新宿", "大田区平和島", "江東区有明"), ("平和島物流センター", "大井埠頭"),
    ),
    City(
        -33.868820, 151.209290, "Sydney NSW 2000, Australia",
        ("Parramatta Road, Leichhardt", "M4 Motorway, Homebush", "Botany Road, Mascot"),
        ("Port Botany", "Eastern Creek DC"),
    ),
    City(
        -6.208763, 106.845599, "Jakarta, Daerah Khusus Ibukota Jakarta, 10310, Indonesia",
        ("Jalan Jenderal Sudirman, Setiabudi", "Jalan Tol Jakarta - Cikampek, Bekasi", "Jalan Raya Cakung Cilincing"),
        ("Tanjung Priok JICT", "Cikarang Dry Port"),
    ),
)  # fmt: skip
